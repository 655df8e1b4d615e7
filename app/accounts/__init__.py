"""Who people are to the server: passwords, sign-ins, tokens."""

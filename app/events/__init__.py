"""What happened, told to whoever wants to know: the events of ``docs/protocol.md``, section 7."""

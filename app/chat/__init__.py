"""What one can do with a chat: ask, stop, ask again, read, follow. Knows no web framework."""

"""The demo model: no network, no key, the same answer to the same question every time."""

"""Throughline: a self-hosted AI chat server whose streamed answers survive reloads and crashes."""

__version__ = "0.1.0"

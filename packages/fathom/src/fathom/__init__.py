"""The whole DeepSeek-V3 system, from raw text to a chat server."""

__version__ = "0.1.0"

"""The whole DeepSeek-V3 system, from raw text to a model that talks."""

__version__ = "0.1.0"

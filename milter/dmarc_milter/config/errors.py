"""What is wrong with a configuration file."""

from __future__ import annotations


class ConfigError(Exception):
    """The file cannot be used. `str()` is one line: FILE:LINE: [section] key: what is wrong and
    what is allowed."""

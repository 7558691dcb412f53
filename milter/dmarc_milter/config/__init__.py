"""The configuration file: its schema, reading it, and turning it into what the core takes."""

from dmarc_milter.config.errors import ConfigError
from dmarc_milter.config.load import DEFAULT_PATH, load, load_without_file, parse
from dmarc_milter.config.schema import Config

__all__ = ["DEFAULT_PATH", "Config", "ConfigError", "load", "load_without_file", "parse"]

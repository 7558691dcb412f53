"""What a domain publishes about its mail, in sentences, and what is wrong with it."""

from dmarc_milter.core.lint.domain import Survey, survey

__all__ = ["Survey", "survey"]

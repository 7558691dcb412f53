"""What a domain publishes about its mail, told in sentences, and what is wrong with it."""

from dmarc_milter.core.lint.domain import Survey, survey
from dmarc_milter.core.lint.finding import Finding, Level

__all__ = ["Finding", "Level", "Survey", "survey"]

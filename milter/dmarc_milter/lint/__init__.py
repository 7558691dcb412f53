"""What a domain publishes about its mail, told in sentences, and what is wrong with it."""

from dmarc_milter.lint.finding import Finding, Level
from dmarc_milter.lint.survey import Survey, survey

__all__ = ["Finding", "Level", "Survey", "survey"]

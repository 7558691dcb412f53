"""What is wrong with a configuration."""

from __future__ import annotations


class ConfigError(Exception):
    """The configuration cannot be used.

    `problems`: a line for each mistake, FILE:LINE: [section] key: what is wrong and what is
    allowed. `str()` is the first of them, and how many more there are.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        more = len(problems) - 1
        further = f" (and {more} more mistake{'s' * (more > 1)})" if more else ""
        super().__init__(f"{problems[0]}{further}")

"""Commands for a shell that change the configuration."""

from __future__ import annotations

import shlex

from dmarc_milter.core.toml import toml


def set_command(key: str, value: str | float | list[str]) -> str:
    """`dmarc-milter config set SECTION.KEY VALUE`."""
    shown = value if isinstance(value, str) else toml(value)
    return f"dmarc-milter config set {key} {shlex.quote(shown)}"

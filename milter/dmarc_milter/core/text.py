"""Text of unknown origin made fit to be shown: in logs, reports, header fields and terminals."""

from __future__ import annotations

import sys


def printable(text: str, limit: int = sys.maxsize, *, ascii_only: bool = True) -> str:
    """`text` as at most `limit` printable characters; anything else is shown escaped.

    `ascii_only` false: printable characters of other scripts stay.
    """
    if text.isprintable() and (text.isascii() or not ascii_only):
        return text[:limit]
    shown = (
        char if char.isprintable() and (char.isascii() or not ascii_only) else escaped(char)
        for char in text[:limit]
    )
    return "".join(shown)[:limit]


def escaped(text: str) -> str:
    """Every character as Python's string literals escape it, unless it is printable ASCII."""
    return text.encode("unicode_escape", "backslashreplace").decode("ascii")


def visible(octets: bytes) -> str:
    """For text that must keep its length: all but printable ASCII as ?."""
    text = octets.decode("latin-1")
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def is_printable(text: str) -> bool:
    """Whether there is nothing but printable ASCII in it, and something at all."""
    return bool(text) and text.isascii() and text.isprintable()

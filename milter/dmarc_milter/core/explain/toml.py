"""Text as TOML has it, for rules that are suggested."""

from __future__ import annotations


def quoted(text: str) -> str:
    """A TOML basic string; what is not printable ASCII is escaped."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"

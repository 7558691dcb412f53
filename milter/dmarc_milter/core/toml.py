"""Values as TOML has them: in the sample file, in rules that are suggested, in what is
translated."""

from __future__ import annotations


def toml(value: object) -> str:
    """A string, number, truth value, or list of these. All but printable ASCII is escaped."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            return str(value)


def quoted(text: str) -> str:
    """A basic string."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"

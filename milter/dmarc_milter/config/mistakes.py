"""Everything that is wrong with a document, in an administrator's words: keys that nobody knows,
values of the wrong kind, values out of bounds."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from dmarc_milter.config.sample import describe
from dmarc_milter.config.schema import Config
from dmarc_milter.core.toml import toml

SHOWN = 60
"""Characters of a wrong value that a message repeats."""
SECRET = {("store", "url")}
"""Keys whose value may hold a password, and is not repeated."""
Path = tuple[str, ...]
Mistake = tuple[Path, str]


def mistakes(document: dict[str, Any]) -> Iterator[Mistake]:
    """(path of the key, what is wrong and what is allowed), in the document's order."""
    yield from _in_table(document, Config, ())


def _in_table(table: dict[str, Any], schema: type[msgspec.Struct], path: Path) -> Iterator[Mistake]:
    hints = get_type_hints(schema, include_extras=True)
    for key, value in table.items():
        if key not in hints:
            yield (*path, key), f"unknown key{elsewhere(key) or suggestion(key, sorted(hints))}"
        else:
            yield from _in_value(value, hints[key], (*path, key))
    for entry in msgspec.structs.fields(schema):
        if entry.required and entry.encode_name not in table:
            yield (*path, entry.name), f"is missing; it is: {describe(hints[entry.name])}"


def _in_value(value: Any, hint: Any, path: Path) -> Iterator[Mistake]:
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    struct = _struct(plain)
    if struct is None:
        problem = _refused(value, hint, "..." if path in SECRET else _shown(value))
        if problem:
            yield path, f"{problem}; it is: {describe(hint)}"
    elif get_origin(plain) is list:
        name = f"tables, [[{'.'.join(path)}]]"
        if not isinstance(value, list):
            yield path, f"must be {name}, not {_shown(value)}"
            return
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield from _in_table(item, struct, (*path, str(index)))
            else:
                yield path, f"must be {name}, not {_shown(item)}"
    elif isinstance(value, dict):
        yield from _in_table(value, struct, path)
    else:
        yield path, f"must be a table, [{'.'.join(path)}], not {_shown(value)}"


def _refused(value: Any, hint: Any, shown: str) -> str:
    """What the value must be and is not, "" where it is."""
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if _kind_differs(value, plain):
            return f"{must_be(plain)}, not {shown}"
        if plain is str and "length" not in str(error):
            return f"{shown} is not of the form that is allowed"
        return f"{shown} is {'too long' if plain is str else 'out of bounds'}"
    return ""


def _kind_differs(value: Any, plain: Any) -> bool:
    """Whether it is another kind of value altogether, bounds apart."""
    try:
        msgspec.convert(value, plain)
    except msgspec.ValidationError:
        return True
    return False


def must_be(plain: Any) -> str:
    """In words: what a value of this type is."""
    if get_origin(plain) is Literal:
        return "must be one of " + ", ".join(toml(word) for word in get_args(plain))
    if get_origin(plain) is list:
        return 'must be a list, like ["a", "b"]'
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text in quotes",
    }
    return f"must be {words[plain]}"


def _shown(value: Any) -> str:
    text = "a table" if isinstance(value, dict) else toml(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _struct(plain: Any) -> type[msgspec.Struct] | None:
    """The section type in a hint such as Milter or list[PolicyRule]; None for plain values."""
    if get_origin(plain) in (list, types.UnionType):
        plain = get_args(plain)[0]
    return plain if isinstance(plain, type) and issubclass(plain, msgspec.Struct) else None


def elsewhere(key: str) -> str:
    """What comes after "unknown key" for one of another section."""
    names = get_type_hints(Config)
    found = [f"[{name}]" for name, table in names.items() if key in get_type_hints(table)]
    return f"; it belongs in {' or '.join(found)}" if found else ""


def suggestion(key: str, known: list[str]) -> str:
    """What comes after "unknown key": the nearest one, or all."""
    near = difflib.get_close_matches(key, known, 1, 0.6)
    return f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}"

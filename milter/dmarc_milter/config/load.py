"""Reading the TOML file: every mistake becomes one line that names file, line, key and what is
allowed."""

from __future__ import annotations

import difflib
import re
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from dmarc_milter.config import checks, root_files
from dmarc_milter.config.errors import ConfigError
from dmarc_milter.config.sample import describe
from dmarc_milter.config.schema import Config
from dmarc_milter.config.secret_files import exposed
from dmarc_milter.core.text import printable

DEFAULT_PATH = Path("/etc/dmarc-milter/dmarc-milter.toml")


def load(path: Path) -> Config:
    """Read and check the file. Raises ConfigError."""
    try:
        text = root_files.read_bytes(path).decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; `dmarc-milter config sample` prints one to"
            " start from"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    config = parse(text, str(path))
    for option, problem in exposed(config, path):
        raise ConfigError(_message(text, str(path), option, problem))
    return config


def parse(text: str, name: str = "configuration") -> Config:
    """The configuration in `text`; `name` stands for the file in messages. Raises ConfigError."""
    try:
        document = tomllib.loads(text)
    except (
        ValueError
    ) as error:  # TOMLDecodeError, or int()'s own for a number of thousands of digits
        raise ConfigError(
            printable(f"{name}: is not valid TOML: {error}", ascii_only=False)
        ) from None
    except RecursionError:
        raise ConfigError(f"{name}: is not valid TOML for us: nested too deeply") from None
    unknown = next(_unknown(document, Config, ()), None)
    if unknown is not None:
        path, known = unknown
        raise ConfigError(_message(text, name, path, f"unknown key{_suggest(path[-1], known)}"))
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `")
        path = _path(where.rstrip("`"))
        described = _described(path) or f"a table, [{'.'.join(path)}]"
        raise ConfigError(_message(text, name, path, f"{problem}; it is: {described}")) from None
    for path, problem in checks.problems(config):
        raise ConfigError(_message(text, name, path, problem))
    return config


def _unknown(
    table: dict[str, Any], schema: type, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Every key that the schema does not know, as (path to it, the known ones beside it)."""
    hints = get_type_hints(schema)
    for key, value in table.items():
        if key not in hints:
            yield (*path, key), sorted(hints)
            continue
        inner = _struct(hints[key])
        if inner is None:
            continue
        for index, item in enumerate(value if isinstance(value, list) else [value]):
            step = (key, str(index)) if isinstance(value, list) else (key,)
            if isinstance(item, dict):
                yield from _unknown(item, inner, (*path, *step))


def _struct(hint: Any) -> type | None:
    """The section type in a hint such as Milter or list[PolicyRule]; None for plain values."""
    if get_origin(hint) in (list, types.UnionType):
        hint = get_args(hint)[0]
    return hint if isinstance(hint, type) and issubclass(hint, msgspec.Struct) else None


def _suggest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1, 0.6)
    return f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}"


def _described(path: tuple[str, ...]) -> str:
    """The sentence of the option at `path`, with its choices and bounds."""
    schema: type = Config
    hint: Any = Config
    for step in path:
        if not step.isdecimal():
            hint = get_type_hints(schema, include_extras=True)[step]
            plain = get_type_hints(schema)[step]
            schema = _struct(plain) or schema
    return describe(hint)


def _path(where: str) -> tuple[str, ...]:
    """msgspec's `$.policy.rules[0].action` as a path."""
    return tuple(step for step in re.split(r"[.\[\]$]+", where) if step)


def _message(text: str, name: str, path: tuple[str, ...], problem: str) -> str:
    keys = [step for step in path if not step.isdecimal()]
    section = ".".join(keys[:-1])
    line = _line(text, path)
    return printable(
        f"{name}:{line}: {f'[{section}] ' if section else ''}{keys[-1] if keys else ''}: {problem}",
        ascii_only=False,
    )


def _line(text: str, path: tuple[str, ...]) -> int:
    """The line, from 1, where the key at `path` stands; the table's own line, or 1, when it is not
    found literally."""
    keys = [step for step in path if not step.isdecimal()]
    wanted = int(next((step for step in path if step.isdecimal()), "0"))
    table, best, seen, depth = ".".join(keys[:-1]), 1, -1, ""
    for number, line in enumerate(text.split("\n"), 1):
        header = re.match(r"\s*\[{1,2}\s*([\w.\"-]+)\s*\]{1,2}", line)
        if header:
            depth = header[1].replace('"', "")
            seen += depth == table
            if depth == ".".join(keys) or (depth == table and seen == wanted):
                best = number
        elif (
            keys
            and depth == table
            and seen >= wanted
            and re.match(rf"\s*\"?{re.escape(keys[-1])}\"?\s*=", line)
        ):
            return number
    return best

"""Where settings stand: the file, the files of conf.d beside it, and the environment.

A later one says more: files of conf.d in the order of their names, then the environment. Local
rules are added up, those of the main file first.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from dmarc_milter.config import root_files
from dmarc_milter.config.errors import ConfigError
from dmarc_milter.core.text import printable

CONF_D = "conf.d"
PREFIX = "DMARC_MILTER__"
"""Of environment variables that are settings: DMARC_MILTER__SECTION__KEY, the value as TOML."""
TableKey = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or one variable of the environment (`text` is empty then), and what it sets."""

    name: str
    text: str
    document: dict[str, Any]

    def line(self, path: TableKey) -> int:
        """The line, from 1, where the key at `path` stands; the line of its table, or of the key
        that holds it, or 1, when it is not found literally."""
        keys = [step for step in path if not step.isdecimal()]
        wanted = int(next((step for step in path if step.isdecimal()), "0"))
        table, best, depth = ".".join(keys[:-1]), 0, ""
        seen = -1 if table else 0
        for number, line in enumerate(self.text.split("\n"), 1):
            header = re.match(r"\s*\[{1,2}\s*([\w.\"-]+)\s*\]{1,2}", line)
            if header:
                depth = header[1].replace('"', "")
                seen += depth == table
                if depth == ".".join(keys) or (depth == table and seen == wanted):
                    best = number
            elif keys and any(
                (
                    depth == table and seen >= wanted and _sets(line, keys[-1]),
                    not depth and _sets(line, ".".join(keys)),
                )
            ):
                return number
        # An inline table, or a dotted key, stands where the key above it does.
        return best or (self.line(tuple(keys[:-1])) if len(keys) > 1 else 1)

    def mistake(self, path: TableKey, problem: str) -> str:
        """The line that says what is wrong with the key at `path`, and where it stands."""
        keys = [step for step in path if not step.isdecimal()]
        if not self.text:
            return printable(f"{self.name}: {problem}", ascii_only=False)
        section = ".".join(keys[:-1])
        where = f"{f'[{section}] ' if section else ''}{keys[-1] if keys else ''}"
        return printable(f"{self.name}:{self.line(path)}: {where}: {problem}", ascii_only=False)


def _sets(line: str, key: str) -> bool:
    return re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line) is not None


def read_sources(path: Path, environment: Mapping[str, str]) -> tuple[Source, ...]:
    """The file, conf.d, and the environment, in this order. Raises ConfigError with all that cannot
    be read."""
    mistakes: list[str] = []
    sources: list[Source] = []
    for file in (path, *files_of_conf_d(path)):
        try:
            sources.append(source(_text_of(file), str(file)))
        except ConfigError as error:
            mistakes += error.problems
    try:
        sources += variables(environment)
    except ConfigError as error:
        mistakes += error.problems
    if mistakes:
        raise ConfigError(*mistakes)
    return tuple(sources)


def variables(environment: Mapping[str, str]) -> tuple[Source, ...]:
    """The settings of the environment. Raises ConfigError with all that cannot be settings."""
    mistakes: list[str] = []
    sources: list[Source] = []
    for name, value in sorted(environment.items()):
        if name.startswith(PREFIX):
            try:
                sources.append(_variable(name, value))
            except ConfigError as error:
                mistakes += error.problems
    if mistakes:
        raise ConfigError(*mistakes)
    return tuple(sources)


def files_of_conf_d(path: Path) -> list[Path]:
    """The *.toml of conf.d beside the file, by name; names that begin with a dot are left out.

    Raises ConfigError for a conf.d that cannot be listed.
    """
    folder = path.parent / CONF_D
    try:
        return sorted(
            entry
            for entry in folder.iterdir()
            if entry.suffix == ".toml" and not entry.name.startswith(".")
        )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be listed: {error.strerror}") from None


def _text_of(path: Path) -> str:
    """Without the byte order mark that some editors write. Raises ConfigError."""
    try:
        return root_files.read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; `dmarc-milter config sample` prints one to"
            " start from"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from None


def source(text: str, name: str) -> Source:
    """A file's text, read. Raises ConfigError for what is not TOML."""
    try:
        return Source(name, text or "\n", _with_dates_as_text(tomllib.loads(text)))
    except (
        ValueError
    ) as error:  # TOMLDecodeError, or int()'s own for a number of thousands of digits
        problem = printable(f"is not valid TOML: {error}", ascii_only=False)
        raise ConfigError(f"{name}: {problem}{_given_before(text, str(error))}") from None
    except RecursionError:
        raise ConfigError(f"{name}: is not valid TOML for us: nested too deeply") from None


def _given_before(text: str, error: str) -> str:
    """Of a table or key that is there twice: the line where it stands first, as an addition to the
    parser's words."""
    at = re.search(r"at line (\d+)", error)
    lines = text.split("\n")
    if at is None or not ("twice" in error or "overwrite" in error):
        return ""
    number = min(int(at[1]), len(lines))
    wanted = re.match(r"\s*(\[[^\]]*\]|[\"']?[\w-]+[\"']?\s*(?==))", lines[number - 1])
    if wanted is None:
        return ""
    start = 0
    if not wanted[1].startswith("["):  # a key: its own table alone can hold it before
        start = max((n for n in range(number - 1) if re.match(r"\s*\[", lines[n])), default=0)
    thing = re.sub(r"\s|[\"']", "", wanted[1])
    for before in range(start, number - 1):
        found = re.match(r"\s*(\[[^\]]*\]|[\"']?[\w-]+[\"']?\s*(?==))", lines[before])
        if found is not None and re.sub(r"\s|[\"']", "", found[1]) == thing:
            shown = printable(thing, 100, ascii_only=False)
            return f"; {shown} stands in line {before + 1} already: put both together there"
    return ""


def _with_dates_as_text(value: Any) -> Any:
    """A TOML date, which some write for `expires`, in the form of the string that is meant."""
    match value:
        case dict():
            return {key: _with_dates_as_text(item) for key, item in value.items()}
        case list():
            return [_with_dates_as_text(item) for item in value]
        case date() if not isinstance(value, datetime):
            return value.isoformat()
        case _:
            return value


def _variable(name: str, value: str) -> Source:
    """Raises ConfigError for a name or a value that cannot be a setting."""
    shown = printable(name, 100)
    section, _, key = name.removeprefix(PREFIX).lower().partition("__")
    if (section, key.partition("__")[0]) == ("policy", "rules"):
        raise ConfigError(f"{shown}: rules are read from files only")
    try:
        document = tomllib.loads(f"value = {value}")
        if set(document) != {"value"}:
            raise ValueError("more than one value")
    except (ValueError, RecursionError):
        raise ConfigError(
            f"{shown}: the value is not TOML: text stands in quotes ('\"inet:8893\"'), a list in"
            " brackets ('[\"192.0.2.0/24\"]')"
        ) from None
    value_of_key = _with_dates_as_text(document["value"])
    return Source(shown, "", {section: {key: value_of_key} if key else value_of_key})


@dataclass(slots=True)
class Merged:
    """All sources as one document, and which of them said what."""

    document: dict[str, Any] = field(default_factory=dict)
    origins: dict[TableKey, tuple[Source, TableKey]] = field(default_factory=dict)
    """Where a key of the document stands: its source, and its path there."""

    def mistake(self, path: TableKey, problem: str) -> str:
        """See Source.mistake."""
        for length in range(len(path), 0, -1):
            found = self.origins.get(path[:length])
            if found is not None:
                origin, local = found
                return origin.mistake((*local, *path[length:]), problem)
        first = next(iter(self.origins.values()), None)
        return first[0].mistake(path, problem) if first else printable(problem, ascii_only=False)


def merge(sources: tuple[Source, ...]) -> Merged:
    """A later source replaces a key of an earlier one; lists of tables (policy.rules) are put one
    after the other."""
    merged = Merged()
    for one in sources:
        for section, table in one.document.items():
            if not isinstance(table, dict):
                merged.document[section] = table
                merged.origins[section,] = (one, (section,))
                continue
            held = merged.document.setdefault(section, {})
            merged.origins.setdefault((section,), (one, (section,)))
            if isinstance(held, dict):
                for key, value in table.items():
                    _put(merged, one, held, (section, key), value)
    return merged


def _put(merged: Merged, one: Source, held: dict[str, Any], path: TableKey, value: Any) -> None:
    before: Any = held.get(path[-1])
    if _is_tables(value) and _is_tables(before):
        for index, item in enumerate(value):
            merged.origins[*path, str(len(before))] = (one, (*path, str(index)))
            before.append(item)
        return
    held[path[-1]] = list(value) if _is_tables(value) else value
    merged.origins[path] = (one, path)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def overriding(sources: tuple[Source, ...], section: str, key: str) -> Iterator[str]:
    """The names of sources after the first, the main file, that set this key."""
    for one in sources[1:]:
        table = one.document.get(section)
        if isinstance(table, dict) and key in table:
            yield one.name

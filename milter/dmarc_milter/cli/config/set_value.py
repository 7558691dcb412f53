"""`dmarc-milter config set`: one value of the file changed, everything else left as it is."""

from __future__ import annotations

import contextlib
import os
import tempfile
import tomllib
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable, Table

from dmarc_milter.config import Config, ConfigError
from dmarc_milter.config.load import compiled
from dmarc_milter.config.mistakes import elsewhere, must_be, suggestion
from dmarc_milter.config.sources import Source, overriding, read_sources, source
from dmarc_milter.core.text import printable
from dmarc_milter.core.toml import toml


def set_value(path: Path, key: str, text: str) -> str:
    """Write SECTION.KEY = value into the file and say what was done. Raises ConfigError, and
    OSError for what cannot be written.

    The value is TOML; for a key that takes text the quotes may be left out. The file keeps its
    comments, mode and owner, and is replaced in one step. Nothing is written where the result would
    be refused, or where conf.d or the environment sets the same key.
    """
    section, name, hint = _option(key)
    sources = read_sources(path, os.environ)
    for other in overriding(sources, section, name):
        raise ConfigError(f"{key}: {other} sets it too and has the last word: change it there")
    value = _value(text, key, hint)
    old, new = sources[0].text, _changed(sources[0], section, name, value)
    compiled((source(new, str(path)), *sources[1:]), path)
    if new == old:
        return f"{path}: [{section}] {name} = {toml(value)} already"
    real = Path(os.path.realpath(path))
    replace_file(real, new, like=real)
    return f"{path}: [{section}] {name} = {toml(value)}"


def _option(key: str) -> tuple[str, str, Any]:
    """(section, key, type) of SECTION.KEY. Raises ConfigError."""
    section, _, name = key.partition(".")
    shown = printable(key, 100)
    sections = get_type_hints(Config)
    if section not in sections:
        raise ConfigError(f"{shown}: unknown section{suggestion(section, sorted(sections))}")
    hints = get_type_hints(sections[section], include_extras=True)
    if name in ("rules", "identities"):
        raise ConfigError(f"{shown}: {name} are tables of their own: add one to the file")
    if name not in hints:
        unknown = elsewhere(name) or suggestion(name, sorted(hints))
        raise ConfigError(f"{shown}: unknown key{unknown}")
    return section, name, hints[name]


def _value(text: str, key: str, hint: Any) -> Any:
    """Raises ConfigError for what is neither TOML nor text for a key that takes text."""
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    is_text = plain is str or get_origin(plain) not in (list, None)
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        document = {}
    value = document.get("value") if set(document) == {"value"} else None
    if is_text and not isinstance(value, str):
        return text
    if value is None:
        raise ConfigError(f"{printable(key, 100)}: {must_be(plain)}, not {toml(text)}")
    return value


def _changed(main: Source, section: str, name: str, value: Any) -> str:
    """The file's text with the value in its place. Raises ConfigError."""
    try:
        document = tomlkit.parse(main.text if main.document else main.text.lstrip("\n"))
        if section not in document:
            document[section] = tomlkit.table()
        _table(document, section, name)[name] = value
        return tomlkit.dumps(document)
    except TOMLKitError as error:
        raise ConfigError(f"{main.name}: {printable(str(error))}: change it by hand") from None


def _table(document: tomlkit.TOMLDocument, section: str, name: str) -> Table | InlineTable:
    """Where the key stands or belongs. A table may be written in several places: `[policy]` above,
    its rules at the end of the file."""
    places = [
        item
        for key, item in document.body
        if key is not None and key.key == section and isinstance(item, Table | InlineTable)
    ]
    having = (place for place in places if name in place)
    plain = (place for place in places if isinstance(place, Table) and not place.is_super_table())
    return next(having, next(plain, places[0]))


def replace_file(path: Path, text: str, *, like: Path) -> None:
    """In one step: whoever reads meanwhile gets the old file or the new one, whole. Mode and owner
    are those of `like`. Raises OSError."""
    before = like.stat()
    number, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            os.fchmod(file.fileno(), before.st_mode & 0o7777)
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise

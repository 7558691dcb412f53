"""The configuration, read and checked: every mistake is one line that names file, line, key and
what is allowed, and all mistakes are reported at once."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from dmarc_milter.config import checks
from dmarc_milter.config.errors import ConfigError
from dmarc_milter.config.mistakes import mistakes
from dmarc_milter.config.schema import Config
from dmarc_milter.config.secret_files import exposed
from dmarc_milter.config.sources import Merged, Source, merge, read_sources, source, variables

DEFAULT_PATH = Path("/etc/dmarc-milter/dmarc-milter.toml")
CONFIG_VARIABLE = "DMARC_MILTER_CONFIG"
"""Of the environment: names the configuration file where `--config` does not."""


def load(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read and check the file, conf.d beside it, and the environment. Raises ConfigError."""
    return compiled(read_sources(path, os.environ if environment is None else environment), path)


def load_without_file() -> Config:
    """Defaults, and what the environment sets. Raises ConfigError."""
    return compiled(variables(os.environ), None)


def parse(text: str, name: str = "configuration") -> Config:
    """The configuration in `text` alone; `name` stands for the file in messages. Raises
    ConfigError."""
    return compiled((source(text, name),), None)


def compiled(sources: tuple[Source, ...], path: Path | None) -> Config:
    """What the sources say together; `path` is the main file, None where there is none on disk.

    Raises ConfigError with every mistake.
    """
    merged = merge(sources)
    found = list(mistakes(merged.document))
    config = _without(merged.document, [where for where, _ in found])
    wrong = {where for where, _ in found}
    found += [(where, text) for where, text in checks.problems(config) if where not in wrong]
    if not found and path is not None:
        files = {key: _file_of(merged, ("store", key), path) for key in ("url", "read_url")}
        for (section, key), text in exposed(config, files):
            found.append(((section, key), text))
    if found:
        raise ConfigError(*dict.fromkeys(merged.mistake(where, text) for where, text in found))
    return config


def _file_of(merged: Merged, key: tuple[str, ...], path: Path) -> Path | None:
    """The file that the key stands in; None for a variable of the environment."""
    origin = merged.origins.get(key)
    if origin is None:
        return path
    return Path(origin[0].name) if origin[0].text else None


def _without(document: dict[str, Any], wrong: list[tuple[str, ...]]) -> Config:
    """The document's configuration with defaults where something is wrong, so that the rest can be
    looked at too. A rule with a mistake keeps its place and is not looked at further."""
    if not wrong:
        return msgspec.convert(document, Config)
    left = copy.deepcopy(document)
    for path in wrong:
        if path[:2] in (("policy", "rules"), ("reporting", "identities")):
            left[path[0]][path[1]] = []
            continue
        table: Any = left
        for step in path[:-1]:
            table = table.get(step, {}) if isinstance(table, dict) else {}
        if isinstance(table, dict) and path:
            table.pop(path[-1], None)
    return msgspec.convert(left, Config)

"""Which of several instances on a host a configuration is: its unit and its folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.config.load import CONFIG_VARIABLE, DEFAULT_PATH

UNIT_FOLDERS = (Path("/etc/systemd/system"), Path("/run/systemd/system"), *(
    folder / "systemd/system" for folder in (Path("/usr/local/lib"), Path("/usr/lib"), Path("/lib"))
))  # fmt: skip
"""systemd.unit(5)."""
NO_UNIT = ""
VARIABLE_IS = f"{CONFIG_VARIABLE}="


class Instance(NamedTuple):
    """Of the packaged units: dmarc-milter, or dmarc-milter@NAME (docs/how-to/several-instances.md).
    `config`: its configuration file. `own_unit`: the unit that names a file elsewhere, or
    NO_UNIT."""

    name: str = ""
    config: Path = DEFAULT_PATH
    own_unit: str | None = None

    @property
    def unit(self) -> str:
        """As `systemctl` takes it; NO_UNIT where systemd does not run the daemon of this file."""
        if self.own_unit is not None:
            return self.own_unit
        return f"dmarc-milter@{self.name}" if self.name else "dmarc-milter"

    @property
    def unit_files(self) -> tuple[str, ...]:
        """Names of the files that say what its unit may do: its own, then the template's."""
        if not self.unit:
            return ()
        own = (f"{self.unit}.service",)
        return (*own, "dmarc-milter@.service") if self.name else own

    @property
    def folder_name(self) -> str:
        """Of its folders below /run and /var/lib."""
        return f"dmarc-milter-{self.name}" if self.name else "dmarc-milter"

    @property
    def state(self) -> Path:
        """StateDirectory=."""
        return Path("/var/lib") / self.folder_name

    @property
    def runtime(self) -> Path:
        """RuntimeDirectory=."""
        return Path("/run") / self.folder_name

    @property
    def is_default(self) -> bool:
        """Whether it is the one that the host's usual files, such as /etc/postfix, belong to."""
        return os.path.realpath(self.config) == os.path.realpath(DEFAULT_PATH)


FIRST = Instance()


def instance(config: Path) -> Instance:
    """The first, one of several by its folder, or that of a unit which names the file."""
    found = re.fullmatch(r"/etc/dmarc-milter-([\w.-]+)/dmarc-milter\.toml", os.path.abspath(config))
    if found or os.path.realpath(config) == os.path.realpath(DEFAULT_PATH):
        return Instance(found[1] if found else "", config)
    return Instance("", config, unit_of(config))


def unit_of(config: Path, folders: Sequence[Path] | None = None) -> str:
    """The unit whose `serve` reads this file, by its own file and drop-ins; NO_UNIT where none
    does. Its companions (drain, report, web) may name the same file."""
    wanted = os.path.realpath(config)
    files, drop_ins = _listed(UNIT_FOLDERS if folders is None else folders)
    units = {*files, *(name.removesuffix(".d") for name in drop_ins)}
    for unit in sorted(units):
        if unit.endswith(".service") and not unit.endswith("@.service"):
            own = files.get(unit) or files.get(_template(unit))
            settings = [one for name in _drop_in_folders(unit) for one in drop_ins.get(name, ())]
            in_order = sorted(
                {one.name: one for one in settings}.values(), key=lambda one: one.name
            )
            if own and _served([own, *in_order]) == wanted:
                return unit.removesuffix(".service")
    return NO_UNIT


def _listed(folders: Sequence[Path]) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """Unit files by their names, the first folder's before the others', and the drop-ins of each
    folder of these, the first's last, so that they replace those of the same name."""
    files: dict[str, Path] = {}
    drop_ins: dict[str, list[Path]] = {}
    for folder in reversed(folders):
        files |= {one.name: one for one in folder.glob("*.service")}
        for one in folder.glob("*service.d/*.conf"):
            drop_ins.setdefault(one.parent.name, []).append(one)
    return files, drop_ins


def _template(unit: str) -> str:
    """`mail@.service` for `mail@two.service`; no other unit has one."""
    name, at, _ = unit.partition("@")
    return f"{name}{at}.service" if at else ""


def _drop_in_folders(unit: str) -> Iterator[str]:
    """What is of this unit alone comes last."""
    stem = unit.removesuffix(".service")
    yield "service.d"
    yield from (f"{stem[: dash.end()]}.service.d" for dash in re.finditer("-", stem))
    if template := _template(unit):
        yield f"{template}.d"
    yield f"{unit}.d"


def _served(files: Sequence[Path]) -> str:
    """The configuration of the `serve` that a unit's files start together: `--config`, else the
    variable; "" where they start another command, or name no file."""
    commands: list[list[str]] = []
    variable = ""
    for key, words in (setting for file in files for setting in _settings(file)):
        if key == "ExecStart":
            commands = [*commands, words] if words else []
        else:
            named = [word.partition("=")[2] for word in words if word.startswith(VARIABLE_IS)]
            variable = named[-1] if named else variable if words else ""
    for words in commands:
        if "serve" in words:
            found = config_option(words) or variable
            return os.path.realpath(found) if found else ""
    return ""


def _settings(file: Path) -> Iterator[tuple[str, list[str]]]:
    """ExecStart= and Environment= with their words."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
    except OSError:
        return
    for key, line in re.findall(r"^(ExecStart|Environment)[ \t]*=(.*)$", text, re.MULTILINE):
        yield key, [re.sub("[\"']", "", word) for word in line.split()]


def config_option(words: Sequence[str]) -> str:
    """What `--config` of a command line names; "" where it is not there."""
    named = ""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--config":
            named = following
        elif word.startswith("--config="):
            named = word.partition("=")[2]
    return named

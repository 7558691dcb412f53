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
    """The unit whose `serve` reads this file, by its own files and drop-ins; NO_UNIT where none
    does."""
    for folder in UNIT_FOLDERS if folders is None else folders:
        for file in sorted(folder.glob("*.service")) + sorted(folder.glob("*.service.d/*.conf")):
            if os.path.realpath(config) in _named(file):
                name = file.name if file.suffix == ".service" else file.parent.stem
                if not name.endswith("@.service"):
                    return name.removesuffix(".service")
    return NO_UNIT


def _named(file: Path) -> Iterator[str]:
    """Configurations of the daemon that a unit's file names: `--config`, or the variable."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
    except OSError:
        return
    for line in re.findall(r"^(?:ExecStart|Environment)=(.*)$", text, re.MULTILINE):
        words = [word.strip("\"'") for word in line.split()]
        if "serve" in words and "--config" in words[:-1]:
            yield os.path.realpath(words[words.index("--config") + 1])
        for word in words:
            key, _, value = word.partition("=")
            if value and (key == CONFIG_VARIABLE or (key == "--config" and "serve" in words)):
                yield os.path.realpath(value)

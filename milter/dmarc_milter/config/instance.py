"""Which of several instances on a host a configuration is: its unit and its folders."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.config.load import DEFAULT_PATH


class Instance(NamedTuple):
    """Of the packaged units: dmarc-milter, or dmarc-milter@NAME (docs/how-to/several-instances.md).
    `config`: its configuration file."""

    name: str = ""
    config: Path = DEFAULT_PATH

    @property
    def unit(self) -> str:
        """As `systemctl` takes it."""
        return f"dmarc-milter@{self.name}" if self.name else "dmarc-milter"

    @property
    def unit_files(self) -> tuple[str, ...]:
        """Names of the files that say what its unit may do: its own, then the template's."""
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
    """One of several instances by its folder, else the first."""
    found = re.fullmatch(r"/etc/dmarc-milter-([\w.-]+)/dmarc-milter\.toml", os.path.abspath(config))
    return Instance(found[1] if found else "", config)

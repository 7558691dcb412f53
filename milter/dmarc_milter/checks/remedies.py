"""Commands of findings as they must be typed where the files are not in their usual places."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from dmarc_milter.config.instance import instance

START = r"(^|&& |; |\| |`)"
"""Where a command begins."""


def placed(remedy: str, *, config: Path | None = None, main_cf: Path | None = None) -> str:
    """With `--config`, and with the folder of main.cf, where these are given: the same words would
    change the files of another installation."""
    if main_cf is not None:
        folder, file = (
            shlex.quote(str(main_cf.absolute().parent)),
            shlex.quote(str(main_cf.absolute())),
        )
        remedy = _added(remedy, "postconf|postfix", f"-c {folder}")
        remedy = remedy.replace("setup --mta postfix", f"setup --mta postfix --main-cf {file}")
    if config is not None:
        unit = shlex.quote(instance(config).unit)
        remedy = re.sub(
            rf"{START}(systemctl (?:[\w-]+ )+)dmarc-milter(?=\s|$)", rf"\1\2{unit}", remedy
        )
        remedy = _added(remedy, "dmarc-milter", f"--config {shlex.quote(str(config.absolute()))}")
    return remedy


def _added(remedy: str, commands: str, option: str) -> str:
    """The option behind each of these commands."""
    return re.sub(
        rf"{START}((?:sudo )?(?:{commands}))(?= )", lambda found: f"{found[0]} {option}", remedy
    )

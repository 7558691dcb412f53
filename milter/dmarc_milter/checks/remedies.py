"""Commands of findings as they must be typed where the files are not in their usual places."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from dmarc_milter.checks.service import START_AGAIN
from dmarc_milter.config.instance import instance

START = r"(^|&& |; |\| |`)"
"""Where a command begins."""
SYSTEMCTL = r"(systemctl (?:[\w-]+ )+)dmarc-milter(?=\s|$)"
"""As all remedies have it that are not about an instance."""
FIRST_START = r"systemctl (?:start|enable --now) dmarc-milter(?=\s|$)"
"""Where no daemon runs yet."""


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
        remedy = _of_unit(remedy, instance(config).unit)
        remedy = _added(remedy, "dmarc-milter", f"--config {shlex.quote(str(config.absolute()))}")
    return remedy


def _of_unit(remedy: str, unit: str) -> str:
    """What the service manager is told is about this unit; where none is known, that the daemon is
    to be started is all that can be said. `dmarc-milter serve` stays in the foreground: nothing may
    follow it, and no other daemon of this file may run."""
    if unit:
        name = shlex.quote(unit)
        return re.sub(rf"{START}{SYSTEMCTL}", rf"\1\2{name}", remedy)
    if re.fullmatch(rf"{FIRST_START}(  # .*)?", remedy):
        return re.sub(FIRST_START, "dmarc-milter serve", remedy)
    if found := re.match(SYSTEMCTL, remedy):
        rest = remedy[found.end() :].removeprefix(" && ").strip()
        return START_AGAIN + (f", then `{rest}`" if rest else "")
    without = re.sub(rf"(?: && |; ){SYSTEMCTL}", "", remedy)
    return f"{without}  {START_AGAIN}" if without != remedy else remedy


def _added(remedy: str, commands: str, option: str) -> str:
    """The option behind each of these commands."""
    return re.sub(
        rf"{START}((?:sudo )?(?:{commands}))(?= )", lambda found: f"{found[0]} {option}", remedy
    )

"""The Debian package of the sources as they are, built once for all tests of a run."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from live.place import REPOSITORY, give_up

WORK = REPOSITORY / ".test"


@cache
def build_deb() -> Path:
    """Its libraries are kept in .test from one run to the next. Test processes that run side by
    side build it once."""
    give_up("" if shutil.which("dpkg-deb") else "dpkg is needed")
    out, built_for = WORK / "deb/out", WORK / "deb/run"
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    (WORK / "deb").mkdir(parents=True, exist_ok=True)
    with (WORK / "deb/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not run or not built_for.exists() or built_for.read_text() != run:
            built_for.unlink(missing_ok=True)
            _build(out)
            built_for.write_text(run)
    (built,) = out.glob("*.deb")
    return built


def _build(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    environment = os.environ | {"BUILD": str(WORK / "deb"), "DEB_COMPRESSION": "gzip"}
    done = subprocess.run(
        [REPOSITORY / "tools/deb.sh", out],
        capture_output=True,
        check=False,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""The Debian package of the sources as they are, built once for all tests of a run."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from live.place import REPOSITORY, give_up

WORK = REPOSITORY / ".test"


@cache
def build_deb() -> Path:
    """Its libraries are kept in .test from one run to the next."""
    give_up("" if shutil.which("dpkg-deb") else "dpkg is needed")
    out = WORK / "deb/out"
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
    (built,) = out.glob("*.deb")
    return built

#!/usr/bin/env python3
"""Fetches the openspf suite for RFC 7208 (rfc7208-tests.yml, 203 cases) out of pyspf's source
distribution.

    tools/fetch_openspf.py [FOLDER]          default .test/openspf; prints the suite's path. Does
    nothing when it is there

The suite has a licence of its own and is not copied into this project. pip finds the source
distribution wherever this machine is configured to find packages.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "2.0.14"
MEMBER = f"pyspf-{VERSION}/test/rfc7208-tests.yml"
FOLDER = Path(__file__).parents[1] / ".test" / "openspf"


def fetch(folder: Path = FOLDER) -> Path:
    """The suite's path, after fetching it if need be. Raises OSError, KeyError or
    CalledProcessError with pip's message printed."""
    suite = folder / Path(MEMBER).name
    if suite.exists():
        return suite
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source = ["--no-binary", "pyspf", "--no-deps", "--dest", scratch, f"pyspf=={VERSION}"]
        subprocess.run(  # noqa: S603 - our own words
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                *source,
            ],
            check=True,
        )
        with tarfile.open(Path(scratch) / f"pyspf-{VERSION}.tar.gz") as archive:
            member = archive.extractfile(MEMBER)
            if member is None:
                raise OSError(f"{MEMBER} is not a file")
            part = Path(scratch) / "part"
            part.write_bytes(member.read())
        part.replace(suite)  # whole or not at all, also with two runs at once
    return suite


if __name__ == "__main__":
    print(fetch(*map(Path, sys.argv[1:2])))

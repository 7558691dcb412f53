"""The Debian package's launcher after the distribution's Python has changed
(docs/how-to/upgrade.md)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).parents[2] / "packaging/debian/launcher"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """/usr/bin of a machine whose python3 is 3.11, with the launcher of a package for it."""
    for version in ("3.11", "3.13"):
        program = tmp_path / f"python{version}"
        program.write_text(f'#!/bin/sh\necho "{version}: $*"\n')
        program.chmod(0o755)
    (tmp_path / "python3").symlink_to("python3.11")
    launcher = tmp_path / "dmarc-milter"
    text = LAUNCHER.read_text().replace("@PYTHON@", "python3.11")
    launcher.write_text(text.replace("/usr/bin/", f"{tmp_path}/"))
    launcher.chmod(0o755)
    return tmp_path


def launch(machine: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [machine / "dmarc-milter", *words], check=False, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def upgrade(machine: Path) -> None:
    (machine / "python3").unlink()
    (machine / "python3").symlink_to("python3.13")


def test_the_python_that_the_package_was_built_for_runs_it(machine: Path) -> None:
    assert launch(machine, "serve") == (0, "3.11: -m dmarc_milter serve\n", "")


def test_after_an_upgrade_the_old_python_serves_with_a_warning(machine: Path) -> None:
    """Mail goes on; other commands say nothing of it."""
    upgrade(machine)
    code, out, err = launch(machine, "serve")
    assert (code, out) == (0, "3.11: -m dmarc_milter serve\n")
    assert "warning" in err
    assert "install the dmarc-milter package that was built for this release" in err
    assert launch(machine, "why", "4QX") == (0, "3.11: -m dmarc_milter why 4QX\n", "")


def test_without_the_old_python_it_says_what_to_install(machine: Path) -> None:
    """One line, and no traceback of libraries that do not fit."""
    upgrade(machine)
    (machine / "python3.11").unlink()
    code, out, err = launch(machine, "serve")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "was built for python3.11, which is not here any more" in err
    assert "upgrade.md" in err

"""packaging/owner.toml: one place says who is responsible, and everything built shows it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/owner.py"
SHOWN = ("SECURITY.md", "pyproject.toml", "Containerfile")
OWNER = """
maintainer = "Ann O'Nym <ann@example.org>"
security = "security@example.org"
home = "https://dmarc-milter.example.org/"
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "packaging").mkdir()
    for name in (*SHOWN, "packaging/owner.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def write(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, TOOL, "write", tree]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def texts(tree: Path) -> dict[str, str]:
    return {name: (tree / name).read_text() for name in SHOWN}


def test_the_files_of_the_tree_say_what_owner_toml_says(tree: Path) -> None:
    """`make generated` mends this."""
    before = texts(tree)
    assert write(tree).returncode == 0
    assert texts(tree) == before


def test_an_owner_is_shown_everywhere_and_can_be_taken_out_again(tree: Path) -> None:
    empty = (tree / "packaging/owner.toml").read_text()
    before = texts(tree)
    (tree / "packaging/owner.toml").write_text(OWNER)
    for _ in range(2):  # a second time changes nothing
        assert write(tree).returncode == 0
    shown = texts(tree)
    assert "Please write to <security@example.org> privately" in shown["SECURITY.md"]
    project = tomllib.loads(shown["pyproject.toml"])["project"]
    assert project["maintainers"] == [{"name": "Ann O'Nym", "email": "ann@example.org"}]
    assert project["urls"] == {"Homepage": "https://dmarc-milter.example.org/"}
    label = 'LABEL org.opencontainers.image.authors="Ann O\'Nym <ann@example.org>"\n'
    assert shown["Containerfile"].count(label) == 1
    (tree / "packaging/owner.toml").write_text(empty)
    assert write(tree).returncode == 0
    assert texts(tree) == before


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('maintainer = "Ann"', "maintainer must be"),
        ('maintainer = "Ann <a@b>\\nDepends: x <a@b>"', "maintainer must be"),
        ('security = "http://example.org/"', "security must be"),
        ('home = "example.org"', "home must be"),
        ("home = 1", "home must be"),
        ('name = "x"', "the keys are"),
        ("maintainer = ", "owner.toml"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(tree: Path, line: str, problem: str) -> None:
    """Also what would become another field of the package's control file."""
    key = line.partition(" ")[0]
    kept = [each for each in OWNER.split("\n") if not each.startswith(f"{key} ")]
    (tree / "packaging/owner.toml").write_text("\n".join([*kept, line]))
    before = texts(tree)
    done = write(tree)
    assert done.returncode == 1
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert texts(tree) == before


def test_a_build_says_in_one_line_what_is_not_yet_set() -> None:
    """And nothing where all is set. `make deb` and `make dist` ask thus."""
    done = subprocess.run([sys.executable, TOOL, "say"], check=True, capture_output=True, text=True)
    who = tomllib.loads((ROOT / "packaging/owner.toml").read_text())
    missing = ", ".join(key for key, value in who.items() if not value)
    line = f"owner: not yet set in packaging/owner.toml: {missing}\n"
    assert done.stdout == (line if missing else "")
    for file in ("tools/deb.sh", "Makefile"):
        assert "tools/owner.py say" in (ROOT / file).read_text()

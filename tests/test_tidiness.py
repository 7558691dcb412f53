"""The project speaks of itself alone: no path of the machine it was written on, no file that does
not belong."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PERSONAL = re.compile(rb"/(?:home|Users)/[a-z][a-z0-9_-]+/|/root/\.|C:\\Users")


def tracked() -> list[Path]:
    """Files under version control, or every file where the tree came without its history."""
    run = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False
    )
    if run.returncode:
        return [
            path
            for path in REPOSITORY.glob("*/**/*")
            if path.is_file() and not any(part.startswith(".") for part in path.parts)
        ]
    return [
        path
        for name in run.stdout.decode().split("\0")
        if name and (path := REPOSITORY / name).is_file()
    ]


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    """A path of one checkout or one home helps nobody else."""
    here = str(REPOSITORY).encode() + b"/"
    named = [
        str(path.relative_to(REPOSITORY))
        for path in tracked()
        if path != Path(__file__)
        and ((text := path.read_bytes()).count(here) or PERSONAL.search(text))
    ]
    assert not named


def test_shell_scripts_are_strict_and_executable() -> None:
    """A set-up that goes on after a failure leaves a riddle behind."""
    ours = (REPOSITORY / "tools", REPOSITORY / ".ci")
    scripts = [
        path
        for path in tracked()
        if path.parent in ours and path.read_bytes().startswith(b"#!/bin/sh")
    ]
    assert scripts
    for path in scripts:
        assert b"\nset -eu\n" in path.read_bytes(), path
        assert path.stat().st_mode & 0o111, path


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "LICENSE",
        ".ci/run",
        "Makefile",
    ],
)
def test_a_stranger_finds_what_a_project_needs(name: str) -> None:
    """Each of these is looked for by somebody who has never seen the project."""
    assert (REPOSITORY / name).stat().st_size > 100


def test_no_lock_file_names_a_registry() -> None:
    """Where packages come from is the machine's business; what they hold is pinned by their
    hashes."""
    packages = json.loads((REPOSITORY / "tests/fuzz/readers/package-lock.json").read_text())[
        "packages"
    ]
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert all("integrity" in package for name, package in packages.items() if name)


def test_every_dependency_is_justified() -> None:
    """CONTRIBUTING.md has a reason for each library that pyproject.toml asks for."""
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    asked += json.loads((REPOSITORY / "tests/fuzz/readers/package.json").read_text())[
        "dependencies"
    ]
    names = {found[0].lower() for each in asked if (found := re.match(r"[A-Za-z0-9-]+", each))}
    text = (REPOSITORY / "CONTRIBUTING.md").read_text().lower()
    assert not {
        name
        for name in names
        if name not in text and not name.startswith("types-") and not name.endswith("-stubs")
    }

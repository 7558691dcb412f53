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


def test_make_test_leaves_no_test_out() -> None:
    """Its three parts are all there is, whatever marks a test has."""
    makefile = (REPOSITORY / "Makefile").read_text()
    assert re.findall(r"-m (\S+|\".*?\") tests \|\|", makefile) == [
        '"not (alone or processor)"',
        "processor",
        "alone",
    ]


def test_every_long_form_is_run_by_make_soak() -> None:
    """What has a long form carries the mark by which `make soak` finds it."""
    imported = re.compile(r"^from fakes\.soak import .*\b(?:LONG|kills)\b", re.MULTILINE)
    forgotten = [
        path.relative_to(REPOSITORY)
        for path in tracked()
        if path.match("test_*.py")
        and imported.search(text := path.read_text())
        and "pytest.mark.soak" not in text
    ]
    assert forgotten == []


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


DOCUMENT = re.compile(r"\b(?:(?:docs|tests|tools|conf)/[\w./-]+\.\w+|[A-Z]+\.md)\b")
SECTION = re.compile(
    r"(?P<document>docs/[\w/-]+\.md|SECURITY\.md), (?P<section>[A-Z][a-z]+(?: [a-z]+)*)"
)
ROW = re.compile(
    r"\b(?:ESP|WL|FWD|BSP|SMU|LTAG|RPL|FRM|HDR|SPF|DKM|ARC|ARF|ARI|DMR|DNS|DOS|RPT|STO|LOG|OPS"
    r"|FLT|[A-Z]{3}(?<!SHA)(?<!UTF)(?<!ISO))-\d{2,3}\b"
)


def texts() -> list[tuple[str, str]]:
    """Every text of ours: where it is and what it says. Test data and licences are others'."""
    return [
        (str(path.relative_to(REPOSITORY)), path.read_text())
        for path in tracked()
        if path.suffix in {".py", ".md", ".toml", ".sh", ".cf", ".mc", ".service"}
        and path != Path(__file__)
        and "vectors" not in path.parts
    ]


def test_every_document_that_is_cited_exists() -> None:
    """A reader outside can open what a comment or a document refers to, and finds the section."""
    missing = []
    for where, text in texts():
        near = (REPOSITORY / where).parent
        for name in set(DOCUMENT.findall(text)):
            if not any((folder / name).exists() for folder in (REPOSITORY, near)) and not re.search(
                "NAME|PROGRAM", name
            ):
                missing.append(f"{where}: {name}")
        words = " ".join(line.strip().lstrip("# ") for line in text.splitlines())
        for cited in SECTION.finditer(words):
            document = (REPOSITORY / cited["document"]).read_text()
            headings = re.findall(r"^#+ (.*)$", document, re.MULTILINE)
            if not any(
                heading.startswith(first := cited["section"]) or first.startswith(heading)
                for heading in headings
            ):
                missing.append(f"{where}: {cited[0]}")
    assert not missing


def test_every_row_that_is_cited_is_in_the_catalogue() -> None:
    """docs/attacks.md has each attack once, with its id and a test that exists."""
    catalogue = (REPOSITORY / "docs/attacks.md").read_text()
    rows = re.findall(r"^\| ([A-Z]+-\d+) \|", catalogue, re.MULTILINE)
    assert len(rows) == len(set(rows)) > 300
    cited = {(where, row) for where, text in texts() for row in ROW.findall(text)}
    assert not {(where, row) for where, row in cited if row not in rows}


def test_nothing_cites_a_paper_that_nobody_outside_can_open() -> None:
    """An RFC, a page under docs/ or a row of the catalogue: what a reader can look up."""
    private = re.compile(r"\bSPEC [A-H]\b|SECURITY-CASES|(?<!docs/)\bDESIGN\b|\bFIELD \d")
    assert not [where for where, text in texts() if private.search(text)]

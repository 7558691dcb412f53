"""The architecture: which folder may import which, and the ranks inside core (docs/design.md)."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "milter" / "dmarc_milter"

BASE = {"core"}
BELOW_CHECKS = {"ledger", "dns", "mta", "process"}
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "config": BASE,
    **dict.fromkeys(BELOW_CHECKS, BASE | {"config"}),
    "checks": BASE | {"config"} | BELOW_CHECKS,
    **dict.fromkeys(("web", "reporting", "telemetry"), BASE | {"config", "checks"} | BELOW_CHECKS),
}
"""What each folder of the package may import besides itself."""
ALLOWED["session"] = ALLOWED["web"] | {"web", "reporting", "telemetry"}
ALLOWED["daemon"] = ALLOWED["session"] | {"session"}
ALLOWED["cli"] = ALLOWED["daemon"] | {"daemon"}

RANK = {
    "mail": 0,
    "resolver": 0,
    "budget": 0,
    "text": 0,
    "quick_dataclass": -1,
    "check_finding": 0,
    "toml": 0,
    "authres": 1,
    "spf": 1,
    "dkim": 1,
    "iprev": 1,
    "arc": 2,
    "dmarc": 2,
    "policy": 3,
    "evaluation": 4,
    "deferrals": 4,
    "fair_sharing": 0,
    "stored": 5,
    "actions": 5,
    "authenticate": 5,
    "report": 6,
    "explain": 6,
    "lint": 7,
}
"""A module or folder of core imports lower ranks only."""
FILES = sorted(PACKAGE.rglob("*.py"))
CORE = [path for path in FILES if path.is_relative_to(PACKAGE / "core")]
OUTSIDE = {
    *("socket", "select", "sqlite3", "psycopg", "subprocess", "signal", "smtplib", "os"),
    *("Milter", "milter", "threading", "random", "time", "secrets"),
}
MAX_MODULES = 20


def name(path: Path) -> str:
    """How a file is called in test ids."""
    return str(path.relative_to(PACKAGE))


def imports(path: Path) -> set[str]:
    """Every module that the file imports, dotted; of `from dmarc_milter.x import y` also x.y."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module in ("dmarc_milter", "dmarc_milter.core"):
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_folder_imports_only_what_it_may(path: Path) -> None:
    """Imports run one way: cli, daemon, session, then web and its peers, down to core."""
    here = path.relative_to(PACKAGE).parts
    if len(here) == 1:  # __init__ and __main__, which belong to the package itself
        return
    for target in imports(path):
        parts = target.split(".")
        if parts[0] != "dmarc_milter" or len(parts) < 2 or parts[1] in (here[0], "__version__"):
            continue
        assert parts[1] in ALLOWED[here[0]], f"{here[0]} imports {target}"


@pytest.mark.parametrize("path", CORE, ids=name)
def test_inside_core_imports_point_down(path: Path) -> None:
    """Rank n imports ranks below n, or its own folder."""
    parts = path.relative_to(PACKAGE / "core").with_suffix("").parts
    if parts[0] == "__init__":
        return
    for target in imports(path):
        there = target.split(".")[2:3]
        if not target.startswith("dmarc_milter.core.") or there == [parts[0]]:
            continue
        assert RANK[there[0]] < RANK[parts[0]], f"{parts[0]} imports {target}"


@pytest.mark.parametrize("path", CORE, ids=name)
def test_core_never_touches_the_outside(path: Path) -> None:
    """Sockets, files, databases, the clock, chance and the MTA are arguments there."""
    assert not {target.split(".")[0] for target in imports(path)} & OUTSIDE


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=name)
def test_no_folder_is_too_full_to_be_read_at_a_glance(folder: Path) -> None:
    """At most 20 modules, `__init__` not counted."""
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MAX_MODULES


def test_no_class_name_stands_twice() -> None:
    """A name says one thing in the whole package."""
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(name(path))
    assert {each: where for each, where in places.items() if len(where) > 1} == {}


def test_the_source_root_is_not_a_package() -> None:
    """`milter/__init__.py` would hide pymilter's C module `milter`."""
    assert not (PACKAGE.parent / "__init__.py").exists()

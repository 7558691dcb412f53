"""The architecture: a module imports only modules of a lower rank (DESIGN.md, Layout)."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "milter" / "dmarc_milter"

RANK = {
    "": 0,
    "domain": 0,
    "address": 0,
    "mailbox_list": 0,
    "readings": 0,
    "odd_names": 0,
    "lenient_lists": 0,
    "encoded_words": 0,
    "lookup": 0,
    "deferrals": 0,
    "spf_record": 0,
    "message": 1,
    "authres": 1,
    "received": 1,
    "claims": 2,
    "spf_query": 1,
    "spf": 2,
    "iprev": 2,
    "dkim": 2,
    "arc": 3,
    "dmarc": 4,
    "disposition": 5,
    "evaluation": 6,
    "results": 7,
    "actions": 8,
    "report": 7,
    "authenticate": 8,
    "explain": 8,
    "lint": 8,
    "edge": 9,
    "__main__": 10,
}
FILES = sorted(PACKAGE.rglob("*.py"))
TOUCHES_THE_OUTSIDE = {"socket", "sqlite3", "psycopg", "Milter", "milter", "subprocess", "threading", "signal", "smtplib", "random", "time"}


def home(path: Path) -> str:
    """The ranked name a file belongs to: its module, or its folder inside the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0].replace("__init__", "")


def imports(path: Path) -> set[str]:
    """Every module that the file imports, dotted."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "dmarc_milter":
                found.update(f"dmarc_milter.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """Rank n imports ranks below n, or its own folder; rank 0 modules may import each other without a cycle."""
    here = home(path)
    for target in imports(path):
        if not target.startswith("dmarc_milter."):
            continue
        there = target.split(".")[1]
        if there == here or (there not in RANK and target == "dmarc_milter.__version__"):
            continue
        assert there in RANK, f"{path.name} imports {target}, which has no rank"
        assert RANK[there] < RANK[here] or RANK[there] == RANK[here] == 0, (
            f"{here} (rank {RANK[here]}) imports {there} (rank {RANK[there]})"
        )


@pytest.mark.parametrize("path", [p for p in FILES if home(p) != "edge"], ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_edge_touches_the_outside(path: Path) -> None:
    """Sockets, files, databases, the clock, chance and the MTA are rank 9's alone."""
    assert not {target.split(".")[0] for target in imports(path)} & TOUCHES_THE_OUTSIDE


def test_the_source_root_is_not_a_package() -> None:
    """`milter/__init__.py` would hide pymilter's C module `milter`."""
    assert not (PACKAGE.parent / "__init__.py").exists()

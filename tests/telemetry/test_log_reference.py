"""docs/reference/log.md names every event and every field of a message's line, and none that is not
there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from dmarc_milter.telemetry.message_log import fields_of
from fakes.evaluations import evaluation

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reference" / "log.md").read_text()
METHODS = {"debug", "info", "warning", "error", "write"}


def first_words(heading: str) -> set[str]:
    """What the first column of the table below a heading names."""
    section = TEXT.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return {
        name
        for line in section.split("\n")
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


def logged() -> set[str]:
    """Event names that the program passes to its log, read from its source."""
    found: set[str] = set()
    for path in (ROOT / "milter" / "dmarc_milter").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in METHODS
            ):
                continue
            if getattr(node.func.value, "attr", getattr(node.func.value, "id", "")) in (
                "log",
                "_log",
            ):
                where = node.args[1:2] if node.func.attr == "write" else node.args[:1]
                found.update(
                    each.value
                    for arg in where
                    for each in ast.walk(arg)
                    if isinstance(each, ast.Constant) and not each.value.endswith(".")
                )
    return found


def test_every_event_is_documented() -> None:
    documented = first_words("Other events") | {"message"}
    assert logged() > {"ready", "reload", "failure", "job_failed"}
    assert not logged() - documented


def test_no_event_is_documented_that_does_not_exist() -> None:
    source = "".join(path.read_text() for path in (ROOT / "milter" / "dmarc_milter").rglob("*.py"))
    for name in first_words("Other events"):
        assert (
            f'"{name}"' in source or f'"dmarc_milter.{name}"' in source or f"event={name}" in source
        ), name


def test_the_fields_of_a_message_are_documented() -> None:
    assert first_words("event=message") == set(fields_of(evaluation(), ())) | {
        "seconds",
        "unrecorded",
    }

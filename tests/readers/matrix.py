"""The table of readers and forms: every reader reads every shape of report in both forms."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from dmarc_milter.core.report.aggregate import Format
from readers.programs import PROGRAMS, Found, Program
from readers.shapes import FORMS, SHAPES, Seen, expected, identity, mail

Verdicts = Mapping[tuple[Format, str], str]
"""By form and shape: "" where a report is read as it was meant, else what is wrong."""


def tried(program: Program) -> Verdicts:
    """What a reader makes of every report. One that stops at a report is given the others again."""
    wanted = [(form, shape) for form in FORMS for shape in SHAPES]
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix="dmarc-readers-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        for form, shape in wanted:
            name = f"{re.sub('[^A-Za-z0-9]+', '-', shape)}-{form}.eml"
            (place / name).write_bytes(mail(shape, form))
        found = program.read(place)
    return {(form, shape): verdict(shape, form, found) for form, shape in wanted}


def verdict(shape: str, form: Format, found: Found) -> str:
    got = found.get(identity(shape, form))
    if not got:
        return "dropped"
    rows = sorted(got, key=_by_count)
    wanted = sorted(expected(shape, form), key=_by_count)
    if len(rows) != len(wanted):
        return "rows are missing"
    for mine, theirs in zip(wanted, rows, strict=True):
        for field, right, read in zip(Seen._fields, mine, theirs, strict=True):
            if read is not None and read != right:
                return f"{field} is {read!r}, not {right!r}"
    return ""


def _by_count(seen: Seen) -> tuple[int, str]:
    return seen.count, seen.header_from


def cell(form: Format, verdicts: Verdicts) -> str:
    """What the table says of a reader and a form."""
    wrong = {shape: verdicts[form, shape] for shape in SHAPES if verdicts[form, shape]}
    if not wrong:
        return "reads all"
    if len(wrong) == len(SHAPES) and set(wrong.values()) == {"dropped"}:
        return "drops every report"
    return "; ".join(f"{shape}: {what}" for shape, what in wrong.items())


def table(rows: Iterable[tuple[Program, Verdicts]]) -> str:
    """In Markdown."""
    lines = ["| reader | version | RFC 9990 | RFC 7489 |", "|---|---|---|---|"]
    lines += [
        f"| {program.name} | {program.version()} | "
        + " | ".join(cell(form, verdicts) for form in FORMS)
        + " |"
        for program, verdicts in rows
    ]
    return "\n".join(lines) + "\n"


def all_tried() -> list[tuple[Program, Verdicts]]:
    return [(program, tried(program)) for program in PROGRAMS.values()]

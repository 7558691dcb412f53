"""Other people's readers read our reports (RFC 9990 3, RFC 7489 Appendix C): each shape, in each
form, and the documented table is what they do."""

from __future__ import annotations

from functools import cache

import pytest

from dmarc_milter.core.report.failing_readers import FAILING_READERS
from live.place import REPOSITORY, give_up
from readers.__main__ import BEGIN, END
from readers.matrix import Verdicts, cell, tried
from readers.programs import PLACE, PROGRAMS
from readers.shapes import SHAPES

pytestmark = pytest.mark.live
TABLE = (REPOSITORY / "docs/reference/reports.md").read_text().partition(BEGIN)[2].partition(END)[0]
DOCUMENTED = {
    words[0]: words[1:]
    for words in (
        [word.strip() for word in line.strip("|").split("|")] for line in TABLE.splitlines()[2:]
    )
}


@cache
def what(name: str) -> Verdicts:
    if not (PLACE / ".ready").exists():
        give_up("run tools/setup_report_readers.sh (make test does) first")
    return tried(PROGRAMS[name])


@pytest.mark.parametrize("name", PROGRAMS)
def test_rpt_72_every_reader_reads_every_shape_of_the_old_form(name: str) -> None:
    """RFC 7489 Appendix C; a null sender's HELO of any kind included (RFC 7208 2.4)."""
    wrong = {shape: what(name)["rfc7489", shape] for shape in SHAPES}
    assert not any(wrong.values()), wrong


@pytest.mark.parametrize("name", PROGRAMS)
def test_rpt_72_readers_that_fail_on_the_new_form_are_listed(name: str) -> None:
    """RFC 9990: whoever fails stands in the list that `format = "auto"` goes by, and nobody else.
    The page's table says the same of the versions it was made with."""
    failing = {reader.name for reader in FAILING_READERS}
    fails = any(what(name)["rfc9990", shape] for shape in SHAPES)
    version, new, old = DOCUMENTED[name]
    if PROGRAMS[name].version() == version:
        assert (fails, new) == (name in failing, cell("rfc9990", what(name)))
        assert old == cell("rfc7489", what(name))


def test_the_page_tells_of_every_reader() -> None:
    assert DOCUMENTED.keys() == PROGRAMS.keys()

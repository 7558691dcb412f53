"""What a command loads before it does anything: whoever asks the ledger waits for no library that
verifies mail."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.policy.decide import Disposition, Verdict
from dmarc_milter.ledger.spool.file import SpoolFile, prepare
from fakes.evaluations import evaluation
from fakes.stores import spool_row

HEAVY = ("dkim", "dns", "spf", "cryptography", "jinja2", "flask", "lxml", "rich", "Milter")
ASKING = ("impact", "why", "stats", "summary", "store", "report")


@pytest.mark.parametrize("command", ASKING)
def test_a_command_that_asks_the_ledger_loads_no_library_for_mail(command: str) -> None:
    """Half a second is all that a question may take (docs/performance.md, A large log); dkimpy and
    dnspython with what they bring take longer to load."""
    allowed = ("lxml",) if command == "report" else ()  # it reads reports
    code = (
        f"import sys, dmarc_milter.cli.{command}, dmarc_milter.ledger.connect;"
        f" print(sorted(set({HEAVY!r}) & set(sys.modules) - set({allowed!r})))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a host whose spool holds two messages that were refused."""
    folder = tmp_path_factory.mktemp("host")
    prepare(folder / "spool.db")
    spool = SpoolFile(folder / "spool.db")
    refused = Verdict(Disposition.REJECT, Policy.REJECT, decided_by="p=reject")
    mail = evaluation("a.example", verdict=refused), evaluation("b.example", verdict=refused)
    spool.write([spool_row(replace(one, at=datetime.now(UTC))) for one in mail])
    spool.close()
    path = folder / "c.toml"
    path.write_text(f'[store]\nurl = "sqlite:///{folder}/reports.db"\n')
    return path


@pytest.mark.parametrize(
    "words",
    ["why", "impact", "stats", "stats --json", "summary", "store status", "report list", "--help"],
)
def test_an_answer_in_plain_letters_needs_no_library_for_it(config: Path, words: str) -> None:
    """To load Rich and have it measure a table takes longer than to ask ten million decisions."""
    code = (
        "import contextlib, io, sys\n"
        "from dmarc_milter.cli.main import main\n"
        "with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), 'utf-8')) as out, "
        "contextlib.suppress(SystemExit):\n"
        f"    main([*{words.split()!r}, '--config', {str(config)!r}])\n"
        "out.flush()\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), len(out.buffer.getvalue()) > 50)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    allowed = ("['lxml'] True", "[] True") if words == "report list" else ("[] True",)
    assert run.stdout.strip() in allowed

"""What a command loads before it does anything: whoever asks the ledger waits for no library that
verifies mail."""

from __future__ import annotations

import subprocess
import sys

import pytest

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

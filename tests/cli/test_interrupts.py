"""Ctrl-C: exit code 130 and no traceback, whenever it comes (docs/reference/exit-codes.md)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AT_IMPORT = """
import os, signal, sys
wanted = sys.argv[1]

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""
"""Sends SIGINT to itself when the module of the first argument is looked for."""
AT_THE_END = """
import atexit, os, signal, sys
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
"""
IN_A_DESTRUCTOR = """
import os, signal, sys
import dmarc_milter.cli.times

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(100000))

dmarc_milter.cli.times.shown = lambda at, last=[Last()]: last.clear() or "then"
"""
IN_THE_RUN = """
import os, signal, sys
import dmarc_milter.ledger.connect
dmarc_milter.ledger.connect.answering_store = lambda config: os.kill(os.getpid(), signal.SIGINT)
"""
PROGRAM = """
sys.argv[:2] = ["dmarc-milter"]
from dmarc_milter.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/reports.db"\n')
    return path


def run(before: str, first: str, words: str, config: Path) -> tuple[int, bool]:
    """Exit code, and whether a traceback was printed."""
    line = [sys.executable, "-c", before + PROGRAM, first, *words.split(), "--config", str(config)]
    done = subprocess.run(
        line,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "milter")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    return done.returncode, bool(
        {"Traceback", "KeyboardInterrupt"} & set(done.stderr.replace(":", " ").split())
    )


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("dmarc_milter.cli.main", "impact"),
        ("dmarc_milter.config.schema", "impact"),
        ("dmarc_milter.cli.impact", "impact"),
        ("dmarc_milter.ledger.store.store", "stats"),
        ("dmarc_milter.daemon.supervisor", "serve"),
        ("waitress", "web --listen 127.0.0.1:0"),
        ("rich.console", "doctor"),
    ],
)
def test_while_modules_are_imported(config: Path, module: str, words: str) -> None:
    assert run(AT_IMPORT, module, words, config) == (130, False)


@pytest.mark.parametrize("before", [IN_THE_RUN, AT_THE_END])
def test_while_a_command_runs_or_ends(config: Path, before: str) -> None:
    assert run(before, "", "stats", config) == (130, False)


def test_where_no_exception_can_be_raised(config: Path) -> None:
    """Python would print "Exception ignored in" with a traceback, and go on."""
    assert run(IN_A_DESTRUCTOR, "", "stats", config) == (130, False)


def test_one_that_came_before_our_own_code(config: Path) -> None:
    """The package's launcher starts the interpreter with SIGINT held back."""
    early = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
os.kill(os.getpid(), signal.SIGINT)
"""
    assert run(early, "", "config sample", config) == (130, False)


def test_who_ignores_it_goes_on(config: Path) -> None:
    """`nohup` and background jobs start their programs so."""
    ignoring = "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    assert run(ignoring + AT_IMPORT, "dmarc_milter.cli.main", "config show", config) == (0, False)


def test_make_run_holds_it_back_while_python_starts(tmp_path: Path) -> None:
    """As the package's launcher does: pip's own start script is Python before we are."""
    program = tmp_path / "venv/bin/dmarc-milter"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexec grep SigBlk /proc/self/status\n")
    program.chmod(0o755)
    program.with_name("python").symlink_to(sys.executable)
    done = subprocess.run(
        [ROOT / "tools/run.sh"],
        env=os.environ | {"RUN": str(tmp_path / "run"), "VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
        check=True,
    )
    blocked = int(done.stdout.splitlines()[-1].split()[1], 16)
    assert blocked & 1 << (signal.SIGINT - 1)

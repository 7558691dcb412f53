"""Whatever becomes of the command's output: one line or none, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "config sample": "",
    "--help": "",
    "report list": "--config",
    "check tests/vectors/hello.eml --ip 192.0.2.1": "--config",
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(
        f'[store]\nurl = "sqlite:///{tmp_path}/reports.db"\n[dns]\nnameservers ='
        ' ["127.0.0.1:1"]\ntimeout = 0.5\n'
    )
    assert main(["store", "drain", "--config", str(path)]) == 0  # makes the store
    return path


def run(
    config: Path, command: str, redirection: str, *, passed: tuple[int, ...] = ()
) -> tuple[int, str]:
    """Exit code and standard error of the command in a shell, which has the descriptors in
    `passed`."""
    words = [
        sys.executable,
        "-m",
        "dmarc_milter",
        *command.split(),
        *((COMMANDS[command], str(config)) if COMMANDS[command] else ()),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | {
        "PYTHONPATH": str(ROOT / "milter")
    }
    shell = ["bash", "-c", f'"$@" {redirection}', "-", *words]
    done = subprocess.run(
        shell,
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        pass_fds=passed,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_line(config: Path, command: str) -> None:
    code, said = run(config, command, ">/dev/full")
    assert (code, said) == (
        75,
        "dmarc-milter: the output cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_gone_is_no_mistake(config: Path, command: str) -> None:
    """`head` has seen enough. The code is that of the answer: here `check` has no DNS and leaves it
    open."""
    answer = 75 if command.startswith("check") else 0
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert run(config, command, f">&{writer}", passed=(writer,)) == (answer, "")
    finally:
        os.close(writer)


def test_a_terminal_that_lacks_a_letter_shows_it_escaped(config: Path) -> None:
    """A Latin-1 locale has no euro sign; the shell may hand over octets that are no text in any."""
    config.write_text(f"{config.read_text()}[reporting]\norg_name = '20 €'\n", encoding="utf-8")
    words = [sys.executable, "-m", "dmarc_milter", "config", "show", "--config", str(config)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "milter"), "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(words, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b'org_name = "20 \\u20ac"' in done.stdout


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-", ">/dev/null 2>/dev/full"])
def test_closed_streams_are_sinks(config: Path, redirection: str) -> None:
    assert run(config, "report list", redirection) == (0, "")

"""What all processes of the daemon write, together: with `[log] format = "json"` nothing but JSON
lines, in a file every line has its time, and a normal stop is no failure (docs/reference/log.md).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes.daemon import ROOT, Daemon, free_port, wait_for

SERVE = ("-m", "dmarc_milter", "serve", "--config")
JSON = {"log": {"format": "json"}}
NO_DNS: dict[str, dict[str, Any]] = {"dns": {"nameservers": ["127.0.0.1:1"], "timeout": 0.5}}


def ready(daemon: Daemon) -> bool:
    return '"ready"' in daemon.text() or "event=ready" in daemon.text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_that_reaches_every_process_is_no_failure(
    tmp_path: Path, number: signal.Signals
) -> None:
    """A terminal's Ctrl-C and some service managers signal all processes at once."""
    metrics = {"metrics": {"listen": f"127.0.0.1:{free_port()}"}}
    reporting = {"reporting": {"org_name": "Example", "email": "dmarc@example.org"}}
    daemon = Daemon(tmp_path, JSON | NO_DNS | metrics | reporting, command=SERVE)
    process = daemon.spawn()
    try:
        names = {"dmarc-metrics", "dmarc-drain"}
        assert wait_for(lambda: ready(daemon) and names <= set(daemon.children().values()), 60), (
            daemon.text()
        )
        os.killpg(process.pid, number)
        assert process.wait(60) == 0
    finally:
        daemon.stop()
    events = [json.loads(line) for line in daemon.lines()]
    assert [event for event in events if event["level"] == "error"] == []
    assert events[-1]["event"] == "stopped"


def test_every_line_is_json_with_its_time(tmp_path: Path) -> None:
    """Greeting, warnings, workers, jobs that fail and tell why: here a report job without a key."""
    reporting = {
        "reporting": {
            "org_name": "Example",
            "email": "dmarc@example.org",
            "smtp_user": "x",
            "smtp_password_file": f"{tmp_path}/none",
            "smtp_tls": "verify",
        }
    }
    daemon = Daemon(tmp_path, JSON | NO_DNS | reporting, command=SERVE)
    daemon.spawn()
    try:
        assert wait_for(lambda: ready(daemon) and '"job_failed"' in daemon.text(), 60)
    finally:
        daemon.stop()
    events = [json.loads(line) for line in daemon.lines()]
    assert all(event["time"] and event["level"] for event in events)
    said = [event["text"] for event in events if event["event"] == "start"]
    assert "mode: enforce" in said
    assert any("the password for the SMTP server" in event.get("text", "") for event in events)


def test_every_line_in_a_file_has_its_time(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, NO_DNS, command=SERVE)
    daemon.spawn()
    try:
        assert wait_for(lambda: ready(daemon), 60)
    finally:
        daemon.stop()
    assert [line for line in daemon.lines() if not re.search(r" time=\d{4}-\d\d-\d\dT", line)] == []


@pytest.mark.parametrize("words", ["serve", "web"])
@pytest.mark.parametrize("form", ["json", "text"])
def test_what_prevents_a_start_is_a_line_like_all_others(
    tmp_path: Path, words: str, form: str
) -> None:
    """The address is taken: known only after the configuration has been read."""
    taken = tmp_path / "taken"
    taken.mkdir()
    daemon = Daemon(
        tmp_path,
        {
            "log": {"format": form},
            "milter": {"socket": f"unix:{taken}"},
            "web": {"listen": "192.0.2.1:1"},
        },
        command=("-m", "dmarc_milter", words, "--config"),
    )
    assert daemon.spawn().wait(60) in (1, 2)
    lines = daemon.lines()
    if form == "json":
        events = [json.loads(line) for line in lines]
        assert [event["event"] for event in events if event["level"] == "error"] == ["problem"]
        assert all(event["time"] for event in events)
    else:
        assert all(" time=" in line for line in lines)


def test_a_pipe_gets_the_sentences_that_people_read(tmp_path: Path) -> None:
    """As `make run` and the journal do: whoever takes the lines notes the time."""
    daemon = Daemon(tmp_path, {"milter": {"socket": f"unix:{tmp_path}"}})
    done = subprocess.run(
        [sys.executable, *SERVE, str(daemon.config)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "milter")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("dmarc-milter: ")

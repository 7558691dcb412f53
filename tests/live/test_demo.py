"""`make demo`: eight right outcomes, and an exit code that tells when one is wrong."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import pytest

from live.place import REPOSITORY, require_live
from live.scenarios import scenarios

pytestmark = pytest.mark.live


def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", REPOSITORY / "tools/demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_demo_shows_eight_right_outcomes() -> None:
    """For each message: the SMTP reply, the field added, one sentence."""
    require_live()
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tools/demo.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 of 8 outcomes are right" in done.stdout
    said = " ".join(done.stdout.split())
    for scenario in scenarios():
        assert scenario.sentence in said
    assert said.count(" 550 5.7.1 ") == 2
    assert said.count("Authentication-Results: mx.test.example;") == 6


def test_the_demo_fails_when_an_outcome_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A demo that cannot fail shows nothing: here the expectations are wrong on purpose."""
    require_live()
    module = demo()
    first, *_, last = scenarios()
    wrong = (replace(first, code=550), replace(first, dmarc="fail"), replace(last, gone=b"Hello."))
    monkeypatch.setattr(module, "scenarios", lambda: wrong)
    assert module.main() == 1
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("WRONG:") == 3
    assert "0 of 3 outcomes are right" in said

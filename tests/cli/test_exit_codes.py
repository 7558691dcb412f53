"""docs/reference/exit-codes.md: each command's "no" (1), "later" (75) and misuse (2), run here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.test_without_configuration import leaves
from dmarc_milter.cli.main import COMMANDS, _parser, main
from fakes.dns_server import DnsServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/exit-codes.md").read_text()
MAIL = ROOT / "tests/vectors/hello.eml"
ZONE = {
    "_dmarc.bad.example": {"TXT": ["v=DMARC1; p=rejct"]},
    "_dmarc.slow.example": {"behaviour": "servfail"},
    "slow.example": {"behaviour": "servfail"},
    "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]},
}
NO = {
    "serve": "serve",
    "check": f"check {MAIL} --ip 192.0.2.1",
    "check --from": "check --from EMPTY",
    "why": "why NONE",
    "allow": "allow NONE",
    "domain": "domain bad.example",
    "ready": "ready",
    "doctor": "doctor",
    "config check": "config check --offline --postfix EMPTY/main.cf",
    "report resend": "report resend abc1",
    "report drop": "report drop abc1",
    "report allow": "report allow a@b.example",
    "report show": "report show abc1",
    "setup": "setup --mta postfix --main-cf EMPTY/main.cf --apply",
}
"""Command of the page -> a line that ends with 1 in an installation without mail."""
LATER = {
    "why": "why x",
    "allow": "allow x",
    "rules test": "rules test",
    "impact": "impact",
    "stats": "stats",
    "summary": "summary",
    "domain": "domain slow.example",
    "report resend": "report resend abc1",
    "report show": "report show abc1",
    "report list": "report list",
    "report preview": "report preview",
    "report suppress": "report suppress a@b.example",
    "report send": "report send",
    "store compact": "store compact",
    "store erase": "store erase --domain a.example",
    "store expire": "store expire",
    "store upgrade": "store upgrade",
}
"""The same for 75, where neither store nor DNS answers."""


@pytest.fixture(scope="module")
def dns() -> Iterator[str]:
    with DnsServer(ZONE) as server:
        yield server.nameserver


def run(folder: Path, nameserver: str, store: str, line: str) -> int:
    """The exit code; the milter's socket is a folder, so that `serve` cannot open it."""
    config, empty = folder / "c.toml", folder / "empty"
    empty.mkdir()
    config.write_text(
        f'[store]\nurl = "{store}"\nspool = "{folder}/spool.db"\n'
        f'[dns]\nnameservers = ["{nameserver}"]\ntimeout = 2.0\n'
        f'[milter]\nsocket = "unix:{empty}"\n[metrics]\nlisten = "127.0.0.1:1"\n'
    )
    return main([*line.replace("EMPTY", str(empty)).split(), "--config", str(config)])


@pytest.mark.parametrize("command", NO)
def test_no_is_1(tmp_path: Path, dns: str, command: str) -> None:
    assert run(tmp_path, dns, f"sqlite:///{tmp_path}/reports.db", NO[command]) == 1


@pytest.mark.parametrize("command", LATER)
def test_later_is_75(tmp_path: Path, dns: str, command: str) -> None:
    assert run(tmp_path, dns, "postgresql://nobody@127.0.0.1:1/none", LATER[command]) == 75


@pytest.mark.parametrize("name", COMMANDS)
def test_misuse_is_2(name: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--no-such-option"])
    assert ended.value.code == 2


def test_every_command_is_on_the_page() -> None:
    named = set(re.findall(r"`([a-z -]+)`", PAGE))
    for name in COMMANDS:
        for words, _ in leaves(_parser([name])):
            if words[0] == name:
                assert {" ".join(words), words[-1]} & named, words

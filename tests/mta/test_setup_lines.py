"""The lines that attach an MTA: each MTA's own spelling of the same socket."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dmarc_milter.config.checks import socket_address
from dmarc_milter.mta import setup_lines


@pytest.mark.parametrize(
    ("socket", "postfix", "sendmail"),
    [
        ("inet:8893@127.0.0.1", "inet:127.0.0.1:8893", "inet:8893@127.0.0.1"),
        ("inet:8893@0.0.0.0", "inet:127.0.0.1:8893", "inet:8893@127.0.0.1"),
        ("inet6:8893@::1", "inet:[::1]:8893", "inet6:8893@::1"),
        ("inet6:8893@::", "inet:[::1]:8893", "inet6:8893@::1"),
        (
            "unix:/run/dmarc-milter/milter.sock",
            "unix:/run/dmarc-milter/milter.sock",
            "unix:/run/dmarc-milter/milter.sock",
        ),
    ],
)
def test_each_mta_gets_its_own_spelling(socket: str, postfix: str, sendmail: str) -> None:
    """Postfix: postconf(5) smtpd_milters, with per-milter settings. Sendmail: cf/README
    INPUT_MAIL_FILTER."""
    address = socket_address(socket)
    assert (
        setup_lines.postfix_main_cf(address)
        == f"smtpd_milters = {{ {postfix}, default_action=tempfail, content_timeout=300s }}"
    )
    assert (
        setup_lines.sendmail_mc(address)
        == f"INPUT_MAIL_FILTER(`dmarc-milter', `S={sendmail}, F=T, T=S:4m;R:4m;E:5m')dnl"
    )


def test_the_text_at_start_holds_both_lines() -> None:
    """`serve` prints lines to copy; a socket handed over by systemd has no name to print."""
    address = socket_address("inet:8893@127.0.0.1")
    text = setup_lines.attach(address)
    assert f"  {setup_lines.postfix_main_cf(address)}" in text
    assert f"  {setup_lines.sendmail_mc(address)}" in text
    assert all(f"  {line}" in text for line in setup_lines.SENDMAIL_STRICT)
    assert setup_lines.attach(socket_address("fd:3")) == ()


# -- the documents ---------------------------------------------------------------------------------

REPOSITORY = Path(__file__).parents[2]
DEFAULT = socket_address("inet:8893@127.0.0.1")
DOCUMENTS = (
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").glob("**/*.md")),
    *sorted((REPOSITORY / "docs/man").iterdir()),
    *sorted((REPOSITORY / "conf").iterdir()),
)


def lines_of(path: Path) -> list[str]:
    """Without indentation, and without what troff needs."""
    text = path.read_text()
    if path.parent.name == "man":
        text = text.replace("\\-", "-").replace("\\(aq", "'").replace("\\(dq", '"')
    return [line.strip() for line in text.split("\n")]


def holds(path: Path, lines: tuple[str, ...]) -> bool:
    """Whether the document has these lines, one below the other."""
    return "\n".join(lines) in "\n".join(lines_of(path))


@pytest.mark.parametrize(
    "name", ["README.md", "docs/tutorial.md", "docs/man/dmarc-milter.8", "conf/postfix-main.cf"]
)
def test_the_postfix_lines_stand_everywhere_with_their_reasons(name: str) -> None:
    assert holds(REPOSITORY / name, setup_lines.postfix_lines(DEFAULT))


@pytest.mark.parametrize(
    "name", ["README.md", "docs/how-to/sendmail.md", "docs/man/dmarc-milter.8", "conf/sendmail.mc"]
)
def test_the_sendmail_lines_stand_everywhere_with_their_reasons(name: str) -> None:
    lines = setup_lines.with_reasons(setup_lines.sendmail_lines(DEFAULT), "dnl")
    assert holds(REPOSITORY / name, lines)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_document_shows_another_form_of_a_line(path: Path) -> None:
    """Wherever smtpd_milters or INPUT_MAIL_FILTER names this milter, it is the line that `setup`
    writes."""
    for line in lines_of(path):
        for found, spelled in re.findall(
            r"(\{ ?((?:inet:127\.0\.0\.1:8893|unix:[^ ,}]*dmarc-milter[^ ,}]*))[^}]*\})", line
        ):
            kind, _, rest = spelled.partition(":")
            address = DEFAULT if kind == "inet" else replace(socket_address("unix:/x"), path=rest)
            assert found == setup_lines.postfix_milter(address)
        bare = re.search(r"smtpd_milters ?= ?(?:inet:127\.0\.0\.1:8893|unix:\S*dmarc-milter)", line)
        assert bare is None, line
        if line.startswith("INPUT_MAIL_FILTER(`dmarc-milter'"):
            assert line == setup_lines.sendmail_mc(DEFAULT)

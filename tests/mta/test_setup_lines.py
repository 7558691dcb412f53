"""The lines that attach an MTA: each MTA's own spelling of the same socket."""

from __future__ import annotations

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

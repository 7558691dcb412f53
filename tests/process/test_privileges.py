"""Privileges and reach: what the daemon does not need it does not keep, or says (OPS-02,
OPS-04)."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from dmarc_milter.config import parse
from dmarc_milter.process import privileges
from fakes.daemon import Daemon


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be warned")
def test_root_without_a_need_is_said(tmp_path: Path) -> None:
    """OPS-04: one line at the start."""
    with Daemon(tmp_path, {"milter": {"workers": 1}}) as daemon:
        assert daemon.text().count("warning: runs as root") == 1


def test_an_account_that_cannot_be_had_prevents_the_start(tmp_path: Path) -> None:
    """One line, and no daemon with more privileges than meant."""
    daemon = Daemon(tmp_path, {"milter": {"user": "nobody-at-all"}})
    with pytest.raises(RuntimeError, match="there is no account nobody-at-all"):
        daemon.start()


def test_nothing_to_give_up_is_no_mistake() -> None:
    """Empty, or the account that systemd chose already."""
    before = os.getresuid(), os.getresgid(), os.getgroups()
    for name in ("", pwd.getpwuid(os.geteuid()).pw_name):
        privileges.drop_privileges(name)
        assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


def test_a_socket_for_everybody_is_said() -> None:
    """OPS-02: 0.0.0.0 and :: are served, and warned about."""
    for socket, expected in (
        ("inet:8893@0.0.0.0", 1),
        ("inet6:8893@::", 1),
        ("inet:8893@127.0.0.1", 0),
        ("unix:/run/x.sock", 0),
    ):
        found = privileges.warnings(parse(f'[milter]\nsocket = "{socket}"\n'))
        assert sum("all addresses" in line for line in found) == expected, socket

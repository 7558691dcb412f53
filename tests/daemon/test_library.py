"""[milter] library: which library speaks with the MTA, and what is said where it is not the one
that was wanted."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fakes.daemon import Daemon
from fakes.dns_server import DnsServer

INSTALLED = importlib.util.find_spec("Milter") is not None
NO_PYMILTER = 'raise ImportError("as on a machine without it")\n'


def without_pymilter(daemon: Daemon, folder: Path) -> None:
    """Python finds a module of that name that cannot be imported."""
    (folder / "Milter.py").write_text(NO_PYMILTER)
    daemon.paths = (str(folder),)


def maps(daemon: Daemon) -> str:
    """The libraries that a worker holds."""
    (worker,) = daemon.workers()
    return Path(f"/proc/{worker}/maps").read_text()


@pytest.mark.parametrize(
    ("library", "installed"),
    [
        ("native", True),
        ("native", False),
        ("pymilter", False),
        pytest.param(
            "pymilter", True, marks=pytest.mark.skipif(not INSTALLED, reason="no pymilter here")
        ),
    ],
)
def test_a_message_is_judged_by_either_library(
    tmp_path: Path, library: str, installed: bool
) -> None:
    """Where pymilter is wanted and not there, our own code serves, and one line says so."""
    with DnsServer({"_dmarc.b.example": {"TXT": ["v=DMARC1; p=reject"]}}) as dns:
        tables = {
            "milter": {"workers": 1, "library": library},
            "dns": {"nameservers": [dns.nameserver]},
        }
        daemon = Daemon(tmp_path, tables)
        if not installed:
            without_pymilter(daemon, tmp_path)
        with daemon, daemon.client() as mta:
            mta.connect("client.example", "192.0.2.1")
            mta.helo("client.example")
            answer = mta.message([("From", " a@b.example")], mail_from="<a@b.example>")
            assert answer.code == 550
            served_by_pymilter = library == "pymilter" and installed
            assert ("libmilter" in maps(daemon)) == served_by_pymilter
            said = [line for line in daemon.lines() if line.startswith("library: ")]
            wanted_in_vain = library == "pymilter" and not installed
            line = "library: native, because pymilter is not installed"
            assert said == ([line] if wanted_in_vain else [])

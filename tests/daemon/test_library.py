"""[milter] library: which library speaks with the MTA, and what is said where it is not the one
that was wanted."""

from __future__ import annotations

import importlib.util
import re
import signal
from pathlib import Path

import pytest

from fakes.daemon import Daemon
from fakes.dns_server import DnsServer
from fakes.milter_client import MilterClient

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
        with daemon, greeted(daemon) as mta:
            answer = mta.message([("From", " a@b.example")], mail_from="<a@b.example>")
            assert answer.code == 550
            served_by_pymilter = library == "pymilter" and installed
            assert ("libmilter" in maps(daemon)) == served_by_pymilter
            said = re.findall(r'"(library: .*)"$', daemon.text(), re.MULTILINE)
            wanted_in_vain = library == "pymilter" and not installed
            line = "library: native, because pymilter is not installed"
            assert said == ([line] if wanted_in_vain else [])


@pytest.mark.skipif(not INSTALLED, reason="no pymilter here")
def test_a_reload_changes_the_library(tmp_path: Path) -> None:
    """New workers serve with it; whoever has a connection keeps the worker that he has."""
    with Daemon(tmp_path, {"milter": {"workers": 1, "library": "native"}}) as daemon:
        held = [greeted(daemon)]
        for number, library in enumerate(("pymilter", "native")):
            daemon.configure({"milter": {"workers": 1, "library": library}})
            daemon.signal(signal.SIGHUP)
            assert daemon.logged("ready", number + 2)
            held.append(greeted(daemon))
        assert [mta.message([("From", " a@localhost")]).code for mta in held] == [250] * 3


def greeted(daemon: Daemon) -> MilterClient:
    mta = daemon.client()
    mta.connect("client.example", "192.0.2.1")
    mta.helo("client.example")
    return mta

"""A private MTA with the daemon attached by the lines of conf/, and a private DNS under both."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dmarc_milter.config.checks import socket_address
from dmarc_milter.mta import setup_lines
from fakes.daemon import Daemon, free_port
from fakes.dns_server import DnsServer
from live.place import REPOSITORY, private_folder, require_live
from live.postfix import Postfix, private_postfix
from live.scenarios import AUTHSERV_ID, zone
from live.sendmail import Sendmail, private_sendmail

Settings = dict[str, dict[str, object]]

DEFAULT = socket_address("inet:8893@127.0.0.1")


@dataclass(frozen=True, slots=True)
class AttachedPostfix:
    mta: Postfix
    daemon: Daemon
    dns: DnsServer
    socket: str


@dataclass(frozen=True, slots=True)
class AttachedSendmail:
    mta: Sendmail
    daemon: Daemon
    dns: DnsServer


def postfix_settings(socket: str) -> dict[str, str]:
    """The lines of conf/postfix-main.cf, with this socket in the place of the default one."""
    text = (REPOSITORY / "conf/postfix-main.cf").read_text()
    shown = setup_lines.postfix_main_cf(DEFAULT)
    assert shown in text
    text = text.replace(shown, setup_lines.postfix_main_cf(socket_address(socket)))
    return dict(re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE))


def sendmail_lines(socket: str) -> str:
    """The lines of conf/sendmail.mc, likewise."""
    text = (REPOSITORY / "conf/sendmail.mc").read_text()
    shown = setup_lines.sendmail_mc(DEFAULT)
    assert shown in text
    return text.replace(shown, setup_lines.sendmail_mc(socket_address(socket))).strip()


@contextmanager
def daemon(dns: DnsServer, socket: str, settings: Settings) -> Iterator[Daemon]:
    """The daemon on that socket, asking that DNS. Nobody is trusted unless `settings` says so."""
    base: Settings = {
        "milter": {"socket": socket, "workers": 1},
        "authentication": {"authserv_id": AUTHSERV_ID},
        "dns": {"nameservers": [dns.nameserver]},
    }
    merged = {
        section: base.get(section, {}) | settings.get(section, {}) for section in base | settings
    }
    with private_folder("daemon") as folder, Daemon(folder, merged) as running:
        yield running


def stop_gently(running: Daemon, *, seconds: float = 40.0) -> None:
    """SIGTERM, as an administrator stops it; it must end by itself, well."""
    assert running.process is not None
    running.signal(signal.SIGTERM)
    assert running.process.wait(seconds) == 0, running.text()


def start_again(running: Daemon) -> None:
    """After a stop: a log of its own for the new run, whose readiness is then told from the old
    one's."""
    running.log.rename(running.log.with_suffix(".before"))
    running.start()


@contextmanager
def postfix_with_milter(settings: Settings | None = None) -> Iterator[AttachedPostfix]:
    """Postfix over TCP."""
    require_live()
    socket = f"inet:{free_port()}@127.0.0.1"
    lines = postfix_settings(socket)
    with (
        DnsServer(zone()) as dns,
        daemon(dns, socket, settings or {}) as running,
        private_postfix(milters=lines.pop("smtpd_milters"), extra=lines) as postfix,
    ):
        yield AttachedPostfix(postfix, running, dns, socket)


@contextmanager
def sendmail_with_milter(settings: Settings | None = None) -> Iterator[AttachedSendmail]:
    """Sendmail over a unix socket, which is reachable from a network of its own."""
    require_live()
    with private_folder(
        "socket", parent="/run"
    ) as folder:  # Sendmail refuses a socket below a world-writable folder
        socket = f"unix:{folder}/milter.sock"
        with (
            DnsServer(zone()) as dns,
            daemon(dns, socket, settings or {}) as running,
            private_sendmail(filters=sendmail_lines(socket)) as sendmail,
        ):
            yield AttachedSendmail(sendmail, running, dns)

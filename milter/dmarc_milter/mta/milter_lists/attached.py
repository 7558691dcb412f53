"""Whether Postfix asks this milter, and which smtpd does."""

from __future__ import annotations

from pathlib import Path

from dmarc_milter.config.checks import SocketAddress
from dmarc_milter.mta.postfix import MasterCfService, MilterEntry, Postfix, address, elements
from dmarc_milter.mta.setup_lines import reachable


def is_ours(milter: MilterEntry, files: Postfix, socket: SocketAddress, *, chrooted: bool) -> bool:
    """Whether an element of smtpd_milters is this daemon's socket."""
    there = address(milter.endpoint, files.queue_directory, chrooted=chrooted)
    if there is None or socket.family == "unix":
        return there == socket
    return there.port == socket.port and _host(there) == _host(socket)


def passes(files: Postfix, service: MasterCfService, socket: SocketAddress) -> bool:
    """Whether mail of this smtpd goes through the milter; `no_milters` switches all off
    (postconf(5), receive_override_options)."""
    overrides = elements(files.value("receive_override_options", service))
    chrooted = files.is_chrooted(service)
    return "no_milters" not in overrides and any(
        is_ours(milter, files, socket, chrooted=chrooted)
        for milter in files.milters(service=service)
    )


def main_cf_lacks(files: Postfix, socket: SocketAddress) -> bool:
    """Whether main.cf's smtpd_milters does not name this milter. An element that a chrooted smtpd
    alone reads as this socket does."""
    if any(is_ours(milter, files, socket, chrooted=False) for milter in files.milters()):
        return False
    smtpd = files.smtpd()
    return not any(map(files.is_chrooted, smtpd)) or not any(
        passes(files, service, socket) for service in smtpd
    )


def unreachable(files: Postfix, socket: SocketAddress) -> str:
    """Why a chrooted smtpd cannot reach a unix socket; "" when all can."""
    if socket.family != "unix" or files.queue_directory in Path(socket.path).parents:
        return ""
    names = [service.name for service in files.smtpd() if files.is_chrooted(service)]
    if not names:
        return ""
    return (
        f"smtpd ({', '.join(names)}) is chrooted in master.cf and cannot reach {socket.path}; "
        "`dmarc-milter setup --mta postfix --socket unix` names one that it can, with its folder"
    )


def _host(there: SocketAddress) -> str:
    host = reachable(there)
    return "127.0.0.1" if host == "localhost" else host

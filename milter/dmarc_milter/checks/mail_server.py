"""The mail server's files: whether its mail passes this milter as it should, and what stands
beside it. Nothing is changed."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from dmarc_milter.checks import host
from dmarc_milter.config import Config
from dmarc_milter.config.checks import SocketAddress, socket_address
from dmarc_milter.config.commands import set_command
from dmarc_milter.config.instance import FIRST, Instance
from dmarc_milter.core.check_finding import Finding, Level
from dmarc_milter.mta import (
    other_filter_files,
    other_filters,
    sendmail_review,
    sendmail_rewriting,
)
from dmarc_milter.mta import sendmail_cf as daemons
from dmarc_milter.mta.earlier_socket import former, is_same
from dmarc_milter.mta.errors import AttachmentError, PostfixError
from dmarc_milter.mta.find import find
from dmarc_milter.mta.milter_lists.wanted import MilterLists
from dmarc_milter.mta.other_filter_advice import advice, order
from dmarc_milter.mta.postfix import Postfix, read
from dmarc_milter.mta.postfix_review import review

DAEMONS = "authentication.trusted_daemons"
SETS_DAEMONS = f"dmarc-milter config set {DAEMONS} "
WRITES_A_LIST = re.compile(r"\bpostconf\b.*smtpd_milters\s?=")
LATER = "first settle the socket (above), then run doctor again"


def postfix(
    config: Config, main_cf: Path, root: Path = Path("/"), *, of: Instance = FIRST
) -> Iterator[Finding]:
    """Order of milters, chroot, networks of a Postfix, and other filters beside it."""
    try:
        files = read(main_cf)
    except PostfixError as error:
        remedy = "dmarc-milter setup --mta sendmail --apply" if _is_sendmail(root) else ""
        yield Finding("error", "postfix", str(error), remedy)
        return
    socket = socket_address(config.milter.socket)
    if socket.family == "fd":
        socket = _passed(of) or socket
    installed = other_filter_files.installed(root)
    trust = config.authentication
    lists = MilterLists(files, socket, installed, trust, _left(main_cf, files, socket))
    findings = [*review(files, socket, trust, lists)]
    if socket.family != "fd":
        findings += order(files, socket, installed, lists)
        others = other_filters.of_postfix(files, socket, installed, lists)
        findings += advice(others, installed, socket)
    yield from findings
    if not any(finding.level == "error" for finding in findings):
        yield Finding("ok", "postfix", f"{main_cf}: mail reaches this milter")


def _left(main_cf: Path, files: Postfix, socket: SocketAddress) -> tuple[SocketAddress, ...]:
    """Sockets whose elements `setup` takes out."""
    if socket.family == "fd":
        return ()
    try:
        return former(main_cf.read_text(errors="surrogateescape"), files, socket)
    except (OSError, AttachmentError):
        return ()


def agreed(
    servers: Iterable[Finding], sockets: Iterable[Finding], config: Config
) -> Iterator[Finding]:
    """Findings about mail servers whose remedies do not undo each other, nor those about the
    `sockets` that are read above them: where the milter is told to move, a list of milters that
    names its present socket must not be written after that; and every command for trusted_daemons
    leaves out what any of them does."""
    servers = list(servers)
    here = config.milter.socket
    moves = any(
        not is_same(socket_address(place), socket_address(here), perhaps=True)
        for one in sockets
        for place in re.findall(r"config set milter\.socket '?([^\s']+)", one.remedy)
    )
    mine = config.authentication.trusted_daemons
    out = {
        name
        for one in servers
        if one.remedy.startswith(SETS_DAEMONS)
        for name in {*mine} - {*tomllib.loads(f"x = {shlex.split(one.remedy)[-1]}")["x"]}
    }
    kept = [name for name in mine if name not in out]
    for one in servers:
        if one.remedy.startswith(SETS_DAEMONS):
            yield one._replace(remedy=set_command(DAEMONS, kept))
        elif moves and WRITES_A_LIST.search(one.remedy):
            yield one._replace(remedy=LATER)
        else:
            yield one


def sendmail(config: Config, sendmail_cf: Path) -> Iterator[Finding]:
    """Daemons of a Sendmail whose name is taken for a login, and is none."""
    trust = config.authentication
    level: Level = "error" if trust.sendmail_daemons_authenticate == "yes" else "warning"
    text = daemons.read(sendmail_cf) or ""
    for name, remark in daemons.remarks(text, trust.trusted_daemons):
        outsiders = (
            '; sendmail_daemons_authenticate = "yes" exempts every outsider there'
            if level == "error"
            else ""
        )
        yield Finding(
            level,
            "sendmail",
            f"{sendmail_cf}: {remark}{outsiders}",
            set_command(
                "authentication.trusted_daemons",
                [one for one in trust.trusted_daemons if one != name],
            ),
        )


def sendmail_filters(
    config: Config, path: Path, *, given: bool, root: Path = Path("/"), of: Instance = FIRST
) -> Iterator[Finding]:
    """Whether mail passes this milter, and other filters beside it: of the Sendmail that is given,
    or that is the host's mail server and so the first instance's."""
    text = daemons.read(path)
    socket = socket_address(config.milter.socket)
    if socket.family == "fd":
        socket = _passed(of) or socket
    if text is None or socket.family == "fd" or not (given or (not of.name and _is_sendmail(root))):
        return
    filters, mc = sendmail_review.of_cf(text), path.with_suffix(".mc")
    installed = other_filter_files.installed(root)
    yield from sendmail_review.attached(filters, socket, str(path), mc)
    yield from advice(other_filters.of_sendmail(filters, socket, installed, mc), installed, socket)


def _passed(of: Instance) -> SocketAddress | None:
    """What systemd listens on for the daemon; the packaged socket unit is the first's."""
    return None if of.name else host.listening()


def _is_sendmail(root: Path) -> bool:
    try:
        return find(root) == "sendmail"
    except AttachmentError:
        return False


def rewriting(path: Path, *, given: bool) -> Iterator[Finding]:
    """Whether a Sendmail changes From after us: the one given, or the configured one where it is
    there."""
    cf = sendmail_rewriting.read(path)
    if cf is None:
        if given:
            yield Finding("error", "rewriting", f"{path}: cannot be read")
        return
    attached = given or cf.has_filter(sendmail_review.NAME)
    remedy = sendmail_review.attach(path.with_suffix(".mc"), first=True)
    findings = [one._replace(remedy=remedy) for one in sendmail_rewriting.findings(cf, str(path))]
    for finding in findings:
        mild = not attached and finding.level == "error"
        yield finding._replace(level="warning") if mild else finding
    if not any(finding.level == "error" for finding in findings):
        yield Finding("ok", "rewriting", f"{path}: From reaches readers as it was judged")

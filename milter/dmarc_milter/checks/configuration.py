"""What `config check` finds out beyond the file: whether the world is as the configuration takes it
to be. Nothing is changed."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from dmarc_milter.checks import host
from dmarc_milter.config import Config, ConfigError
from dmarc_milter.config.checks import SocketAddress, authserv_id, metrics_address, socket_address
from dmarc_milter.config.paths import STATE, spool_path
from dmarc_milter.config.secrets import web_token
from dmarc_milter.core.check_finding import Finding, Level
from dmarc_milter.core.dmarc.discovery import PublicSuffixes
from dmarc_milter.core.mail import domain as domains
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.dns.probe import probe
from dmarc_milter.dns.resolver import DnsResolver
from dmarc_milter.dns.suffix_list import Suffixes, SuffixListError, load_suffixes
from dmarc_milter.ledger.connect import database_of
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.store.status import is_there, spool_status, store_status
from dmarc_milter.mta import other_filter_files, other_filters, sendmail_review, sendmail_rewriting
from dmarc_milter.mta import sendmail_cf as daemons
from dmarc_milter.mta.errors import PostfixError
from dmarc_milter.mta.other_filter_advice import advice, order
from dmarc_milter.mta.postfix import read
from dmarc_milter.mta.postfix_review import review
from dmarc_milter.mta.setup_lines import reachable
from dmarc_milter.process.loop import Loop
from dmarc_milter.process.sockets import describe

SECONDS = 3.0
SERVICE = "dmarc-milter"
"""The account that the packages and units run as."""
USE_OWN_RESOLVER = """`dmarc-milter config set dns.nameservers '["127.0.0.1"]'`"""
TOKEN = (
    "openssl rand -hex 16 > /etc/dmarc-milter/web-token; chmod 640 /etc/dmarc-milter/web-token;"
    " chgrp dmarc-milter /etc/dmarc-milter/web-token; `dmarc-milter config set web.token_file"
    " /etc/dmarc-milter/web-token`"
)
NOT_NAMES = ("localhost", "localhost.localdomain", "localhost.localdomain.localdomain")


def mode(config: Config) -> Iterator[Finding]:
    """What the configuration means for mail, in plain words."""
    if config.policy.enforce:
        yield Finding(
            "ok", "policy", f"enforcing: p=reject is answered by {config.policy.reject_action}"
        )
    else:
        yield Finding(
            "note",
            "policy",
            "monitor mode: nothing is refused or quarantined; `dmarc-milter impact` shows what"
            " would be",
        )
    if config.milter.deadline <= config.dns.budget:
        yield Finding(
            "warning",
            "limits",
            f"[milter] deadline, {config.milter.deadline:g} s, is not above [dns] budget,"
            f" {config.dns.budget:g} s: where the DNS is only slow, workers are killed and their"
            " sessions get 451",
            f"dmarc-milter config set milter.deadline {2 * config.dns.budget:g}",
        )


def milter_socket(config: Config) -> Iterator[Finding]:
    """Free, or ours already; reachable from no further than meant."""
    address = socket_address(config.milter.socket)
    where = describe(address)
    if address.family == "fd":
        yield Finding("ok", "socket", f"{where}: passed by systemd, not tested")
        return
    yield from (
        _unix_socket(Path(address.path)) if address.family == "unix" else _inet_socket(address)
    )
    answer = _listener(address)
    if answer == "nobody":
        yield Finding("ok", "socket", f"{where} is free: the daemon is not running")
    elif answer == "milter":
        yield Finding("ok", "socket", f"a milter answers on {where}: the daemon is running")
    else:
        yield Finding(
            "error",
            "socket",
            f"{where} {answer}",
            "name another with `dmarc-milter config set milter.socket inet:PORT@127.0.0.1`, or end"
            " the other program (`ss -lptn`)",
        )


def _unix_socket(path: Path) -> Iterator[Finding]:
    if path.is_symlink():
        text = f"{path} is a symbolic link, which the daemon refuses"
        yield Finding("error", "socket", text, f"rm {path}")
    try:
        found = path.parent.stat()
    except OSError as error:
        text = f"{path.parent}: {error.strerror}"
        if path.parent == Path("/run/dmarc-milter"):
            text += " (systemd creates it when the service starts)"
            yield Finding("warning", "socket", text, "systemctl start dmarc-milter")
        else:
            yield Finding("error", "socket", text, f"install -d -m 0755 {path.parent}")
        return
    if found.st_mode & stat.S_IWOTH:
        text = f"{path.parent} can be written by everybody: anyone could put another socket there"
        yield Finding("error", "socket", text, f"chmod o-w {path.parent}")


def _inet_socket(address: SocketAddress) -> Iterator[Finding]:
    try:
        host = ipaddress.ip_address(address.host)
    except ValueError:
        return
    if not host.is_loopback:
        yield Finding(
            "warning",
            "socket",
            f"{describe(address)} can be reached from the network; the milter protocol has no"
            " password",
            f"dmarc-milter config set milter.socket inet:{address.port}@127.0.0.1",
        )


def _listener(address: SocketAddress) -> str:
    """nobody, milter, or a clause that says what is wrong."""
    family = {"unix": socket.AF_UNIX, "inet6": socket.AF_INET6}.get(address.family, socket.AF_INET)
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(SECONDS)
        try:
            sock.connect(
                address.path if address.family == "unix" else (reachable(address), address.port)
            )
        except FileNotFoundError:
            return "nobody"
        except ConnectionRefusedError:
            return "nobody" if address.family == "unix" else _free(address)
        except OSError as error:
            return f"cannot be reached: {error.strerror or error}"
        return "milter" if _is_milter(sock) else "belongs to another program"


def _is_milter(sock: socket.socket) -> bool:
    """Offer SMFIC_OPTNEG: version 6, no actions, no protocol steps. A milter answers with its
    own."""
    try:
        sock.sendall(struct.pack("!LcLLL", 13, b"O", 6, 0x1FF, 0x1FFFFF))
        return sock.recv(5)[4:] == b"O"
    except OSError:
        return False


def _free(address: SocketAddress) -> str:
    """Whether the address is one of this machine."""
    family = socket.AF_INET6 if address.family == "inet6" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address.host, address.port))
        except OSError as error:
            return (
                "nobody"
                if error.errno == errno.EACCES
                else f"cannot be opened: {error.strerror or error}"
            )
    return "nobody"


def identity(config: Config, suffixes: PublicSuffixes | None) -> Iterator[Finding]:
    """The name in Authentication-Results: other programs trust it, so it should be this host's or
    the organization's own."""
    name = authserv_id(config)
    where = "authserv_id" if config.authentication.authserv_id else "authserv_id (the host name)"
    found = domains.parse(name)
    if name in NOT_NAMES or not isinstance(found, Domain) or "." not in found.name:
        text = (
            f"{name} does not name this host alone: set [authentication] authserv_id to its full"
            " name"
        )
        yield Finding(
            "error" if config.authentication.authserv_id in NOT_NAMES else "warning",
            where,
            text,
            "dmarc-milter config set authentication.authserv_id mx.YOUR.DOMAIN",
        )
    elif suffixes is not None and suffixes.is_icann_suffix(found):
        yield Finding("error", where, f"{name} is a public suffix")
    else:
        yield Finding("ok", where, name)


def suffix_list(config: Config) -> tuple[Suffixes | None, list[Finding]]:
    """The list itself, for the other checks, and the findings about it."""
    try:
        suffixes = load_suffixes(config.dmarc.suffix_list)
    except SuffixListError as error:
        return None, [Finding("error", "suffix list", str(error))]
    stale = suffixes.stale(datetime.now(UTC).date())
    return suffixes, [
        (
            Finding("warning", "suffix list", stale, "apt install --only-upgrade publicsuffix")
            if stale
            else Finding("ok", "suffix list", f"{suffixes.path} of {suffixes.published}")
        )
    ]


def ledger(config: Config) -> Iterator[Finding]:
    """Spool and store: reachable, of the right schema, writable."""
    path = spool_path(config)
    spool = spool_status(path) if is_there(path) else None
    if spool is not None and spool.remedy:
        yield Finding("error", "spool", f"{spool.problem}: {spool.remedy}", spool.remedy)
    elif spool is not None:
        yield Finding("ok", "spool", f"{path}: {spool.waiting} messages waiting")
    else:
        yield _to_be_created("spool", path)
    yield _store(config)


def _store(config: Config) -> Finding:
    try:
        with closing(database_of(config, Access.READ)) as database:
            store = store_status(database)
            if database.dialect == "sqlite" and store.problem and not is_there(Path(database.name)):
                return _to_be_created("store", Path(database.name))
            if store.problem:
                text = f"{store.problem}: {store.remedy}"
                return Finding("error", "store", text, store.remedy)
            return Finding("ok", "store", f"{store.name}: schema {store.schema}")
    except ConfigError as error:
        return Finding("error", "store", str(error))


def _to_be_created(what: str, path: Path) -> Finding:
    folder = path.parent
    if not folder.is_dir() and folder != STATE:
        text = f"{folder} does not exist: create it, writable by the account of the service"
        return Finding("error", what, text, f"install -d -o {SERVICE} -m 0750 {folder}")
    if not folder.is_dir():
        text = f"{folder} does not exist yet; systemd creates it when the service starts"
        return Finding("warning", what, text, "systemctl start dmarc-milter")
    if not os.access(folder, os.W_OK):
        return Finding(
            "warning",
            what,
            f"{folder} cannot be written by this account; the service's account must be able to",
        )
    return Finding("ok", what, f"{path} will be created")


def dns(config: Config) -> Iterator[Finding]:
    """Whether the name servers can be used, each of them asked by itself."""
    health = probe(config, Loop(), min(config.dns.timeout, 2 * SECONDS))
    where = ", ".join(config.dns.nameservers) or "the system's resolvers"
    if health.problem:
        yield Finding(
            "error",
            "dns",
            f"{where}: not usable ({health.problem}); without DNS nothing can be judged",
            f"run a resolver on this host (apt install unbound) and {USE_OWN_RESOLVER}",
        )
        return
    if health.doubt:
        yield Finding(
            "warning",
            "dns",
            f"{health.doubt}: np and SPF's limit of void look-ups are misjudged; use an honest"
            " resolver",
            f"run a resolver on this host (apt install unbound) and {USE_OWN_RESOLVER}",
        )
    yield Finding("ok", "dns", f"{where}: answering")


def exposed_listeners(config: Config) -> Iterator[Finding]:
    """Whether metrics and dashboard are reachable from the network."""
    address = metrics_address(config.metrics.listen)
    if address is not None and address.family != "unix" and not _loopback(address.host):
        yield Finding(
            "warning",
            "metrics",
            f"{config.metrics.listen} can be reached from the network; there is no password",
            f"dmarc-milter config set metrics.listen 127.0.0.1:{address.port}",
        )
    yield from _dashboard(config)


def _dashboard(config: Config) -> Iterator[Finding]:
    host = config.web.listen.rpartition(":")[0].strip("[]")
    if config.web.token_file:
        try:
            web_token(config, host)
        except ConfigError as error:
            yield Finding("error", "web", str(error), TOKEN)
    elif config.web.listen and not config.web.listen.startswith("unix:") and not _loopback(host):
        yield Finding(
            "error",
            "web",
            f"{config.web.listen} can be reached from the network: set [web] token_file",
            TOKEN,
        )


def sendmail(config: Config, sendmail_cf: Path) -> Iterator[Finding]:
    """Daemons of a Sendmail whose name is taken for a login, and is none."""
    trust = config.authentication
    level: Level = "error" if trust.sendmail_daemons_authenticate == "yes" else "warning"
    for remark in daemons.remarks(daemons.read(sendmail_cf) or "", trust.trusted_daemons):
        outsiders = (
            '; sendmail_daemons_authenticate = "yes" exempts every outsider there'
            if level == "error"
            else ""
        )
        yield Finding(level, "sendmail", f"{sendmail_cf}: {remark}{outsiders}")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def postfix(config: Config, main_cf: Path, root: Path = Path("/")) -> Iterator[Finding]:
    """Order of milters, chroot, networks of a Postfix, and other filters beside it."""
    try:
        files = read(main_cf)
    except PostfixError as error:
        yield Finding("error", "postfix", str(error))
        return
    socket = socket_address(config.milter.socket)
    if socket.family == "fd":
        socket = host.listening() or socket
    findings = [*review(files, socket, config.authentication)]
    if socket.family != "fd":
        installed = other_filter_files.installed(root)
        findings += order(files, socket, installed)
        findings += advice(other_filters.of_postfix(files, socket, installed), installed, socket)
    yield from findings
    if not any(finding.level == "error" for finding in findings):
        yield Finding("ok", "postfix", f"{main_cf}: mail reaches this milter")


def rewriting(path: Path, *, given: bool) -> Iterator[Finding]:
    """Whether a Sendmail changes From after us: the one given, or the configured one where it is
    there."""
    cf = sendmail_rewriting.read(path)
    if cf is None:
        if given:
            yield Finding("error", "rewriting", f"{path}: cannot be read")
        return
    attached = given or cf.has_filter(sendmail_review.NAME)
    findings = list(sendmail_rewriting.findings(cf, str(path)))
    for finding in findings:
        mild = not attached and finding.level == "error"
        yield finding._replace(level="warning") if mild else finding
    if not any(finding.level == "error" for finding in findings):
        yield Finding("ok", "rewriting", f"{path}: From reaches readers as it was judged")


def resolver_of(config: Config) -> DnsResolver:
    return DnsResolver(Loop(), config.dns.nameservers, timeout=min(config.dns.timeout, 2 * SECONDS))

"""What `config check` finds out beyond the file: whether the world is as the configuration takes it
to be. Nothing is changed."""

from __future__ import annotations

import errno
import ipaddress
import itertools
import os
import shlex
import socket
import stat
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from dmarc_milter.checks import folders, secrets, service
from dmarc_milter.config import Config, ConfigError
from dmarc_milter.config.checks import SocketAddress, authserv_id, metrics_address, socket_address
from dmarc_milter.config.commands import set_command
from dmarc_milter.config.instance import FIRST, Instance
from dmarc_milter.config.secrets import web_token
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.core.dmarc.discovery import PublicSuffixes
from dmarc_milter.core.mail import domain as domains
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.dns.probe import probe
from dmarc_milter.dns.resolver import DnsResolver
from dmarc_milter.dns.suffix_list import DEBIAN_FILE, Suffixes, SuffixListError, load_suffixes
from dmarc_milter.mta.setup_lines import reachable
from dmarc_milter.process.loop import Loop
from dmarc_milter.process.sockets import describe

SECONDS = 3.0
OWN_RESOLVER = (
    f"{service.install_package('unbound')} && {set_command('dns.nameservers', ['127.0.0.1'])}"
)


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
            set_command("milter.deadline", 2 * config.dns.budget),
        )


NOT_RUNNING = "the daemon is not running"


def milter_socket(config: Config, of: Instance = FIRST) -> Iterator[Finding]:
    """Free, or ours already; reachable from no further than meant."""
    address = socket_address(config.milter.socket)
    where = describe(address)
    if address.family == "fd":
        yield Finding("ok", "socket", f"{where}: passed by systemd, not tested")
        return
    yield from (
        _unix_socket(config, Path(address.path), of)
        if address.family == "unix"
        else _inet_socket(address)
    )
    answer = _listener(address)
    if answer == "nobody":
        yield Finding("ok", "socket", f"{where} is free: {NOT_RUNNING}")
    elif answer == "milter":
        yield Finding("ok", "socket", f"a milter answers on {where}: the daemon is running")
    else:
        yield Finding(
            "error",
            "socket",
            f"{where} {answer} (`ss -lptnx` shows the program; the remedy names another socket)",
            set_command("milter.socket", _another(address, of)),
        )


def _another(address: SocketAddress, of: Instance) -> str:
    """A socket of this host that nobody has."""
    if address.family == "unix":
        path = Path(address.path)
        names = (f"dmarc-milter{number or ''}.sock" for number in itertools.count())
        places = (path.with_name(name) for name in names)
        return f"unix:{next(one for one in places if one != path and not os.path.lexists(one))}"
    host = "::1" if address.family == "inet6" else "127.0.0.1"
    # The first instance's usual port is its own, also while it does not run.
    port = service.free_port(address, keep=8893 if of.name else 0)
    return f"{address.family}:{port}@{host}"


def _unix_socket(config: Config, path: Path, of: Instance) -> Iterator[Finding]:
    if os.path.islink(path):
        text = f"{path} is a symbolic link, which the daemon refuses"
        yield Finding("error", "socket", text, f"rm {shlex.quote(str(path))}")
    try:
        found = path.parent.stat()
    except OSError as error:
        yield _no_folder(config, path.parent, error, of)
        return
    if found.st_mode & stat.S_IWOTH:
        text = f"{path.parent} can be written by everybody: anyone could put another socket there"
        closed = f"chmod o-w {shlex.quote(str(path.parent))}"
        ours = set_command("milter.socket", f"unix:{of.runtime}/milter.sock")
        # /tmp and its like are meant to be so.
        yield Finding("error", "socket", text, ours if found.st_mode & stat.S_ISVTX else closed)


def _no_folder(config: Config, folder: Path, error: OSError, of: Instance) -> Finding:
    text = f"{folder}: {error.strerror}"
    if folder == of.runtime:
        text += " (systemd creates it when the service starts)"
        return Finding("warning", "socket", text, service.start(of))
    if not folders.is_missing(folder):
        return Finding("warning", "socket", text, "sudo dmarc-milter doctor")
    account, group = service.names(config)
    made = f"install -d -o {account} -g {group} -m 0755 {shlex.quote(str(folder))}"
    return Finding("error", "socket", text, made)


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
            set_command(
                "milter.socket",
                f"inet6:{address.port}@::1"
                if address.family == "inet6"
                else f"inet:{address.port}@127.0.0.1",
            ),
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
    if name in service.NOT_NAMES or not isinstance(found, Domain) or "." not in found.name:
        text = (
            f"{name} does not name this host alone: set [authentication] authserv_id to its full"
            " name"
        )
        yield Finding(
            "error" if config.authentication.authserv_id in service.NOT_NAMES else "warning",
            where,
            text,
            set_command("authentication.authserv_id", service.own_name(suffixes)),
        )
    elif suffixes is not None and suffixes.is_icann_suffix(found):
        yield Finding(
            "error",
            where,
            f"{name} is a public suffix",
            set_command("authentication.authserv_id", service.own_name(suffixes)),
        )
    else:
        yield Finding("ok", where, name)


def suffix_list(config: Config) -> tuple[Suffixes | None, list[Finding]]:
    """The list itself, for the other checks, and the findings about it."""
    try:
        suffixes = load_suffixes(config.dmarc.suffix_list)
    except SuffixListError as error:
        remedy = (
            set_command("dmarc.suffix_list", "")
            if config.dmarc.suffix_list
            else service.install_package("publicsuffix")
        )
        return None, [Finding("error", "suffix list", str(error), remedy)]
    stale = suffixes.stale(datetime.now(UTC).date())
    is_own = config.dmarc.suffix_list not in ("", DEBIAN_FILE)
    named = f" && {set_command('dmarc.suffix_list', '')}" if is_own else ""
    return suffixes, [
        (
            Finding(
                "warning", "suffix list", stale, f"{service.install_package('publicsuffix')}{named}"
            )
            if stale
            else Finding("ok", "suffix list", f"{suffixes.path} of {suffixes.published}")
        )
    ]


def dns(config: Config) -> Iterator[Finding]:
    """Whether the name servers can be used, each of them asked by itself."""
    health = probe(config, Loop(), min(config.dns.timeout, 2 * SECONDS))
    where = ", ".join(config.dns.nameservers) or "the system's resolvers"
    if health.problem:
        yield Finding(
            "error",
            "dns",
            f"{where}: not usable ({health.problem}); without DNS nothing can be judged;"
            " a resolver on this host is the usual way",
            OWN_RESOLVER,
        )
        return
    if health.doubt:
        yield Finding(
            "warning",
            "dns",
            f"{health.doubt}: np and SPF's limit of void look-ups are misjudged; use an honest"
            " resolver",
            OWN_RESOLVER,
        )
    yield Finding("ok", "dns", f"{where}: answering")


def exposed_listeners(config: Config, of: Instance = FIRST) -> Iterator[Finding]:
    """Whether metrics and dashboard are reachable from the network."""
    address = metrics_address(config.metrics.listen)
    if address is not None and address.family != "unix" and not _loopback(address.host):
        yield Finding(
            "warning",
            "metrics",
            f"{config.metrics.listen} can be reached from the network; there is no password",
            set_command("metrics.listen", f"127.0.0.1:{address.port}"),
        )
    yield from _dashboard(config, of)


def _dashboard(config: Config, of: Instance) -> Iterator[Finding]:
    host = config.web.listen.rpartition(":")[0].strip("[]")
    if config.web.token_file:
        try:
            web_token(config, host)
        except ConfigError as error:
            path = config.web.token_file
            remedy = secrets.remedy(path, error, partial(service.new_token, config=config))
            yield Finding("error", "web", str(error), remedy)
    elif config.web.listen and not config.web.listen.startswith("unix:") and not _loopback(host):
        yield Finding(
            "error",
            "web",
            f"{config.web.listen} can be reached from the network: set [web] token_file",
            _new_token(config, of),
        )


def _new_token(config: Config, of: Instance) -> str:
    """A token that the service may read and nobody else, beside the configuration, and its file
    named. One that is there is taken as it is."""
    file = str(Path(os.path.abspath(of.config)).with_name("web-token"))
    named = set_command("web.token_file", file)
    is_there = os.path.lexists(file)
    return named if is_there else f"{service.new_token(file, config)} && {named}"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def resolver_of(config: Config) -> DnsResolver:
    return DnsResolver(Loop(), config.dns.nameservers, timeout=min(config.dns.timeout, 2 * SECONDS))

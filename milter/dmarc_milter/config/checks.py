"""Values that need more than a type: sockets, networks, domains, addresses of servers."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from dmarc_milter.config.schema import Config
from dmarc_milter.config.schema_policy import PolicyRule
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain, Malformed

IPNetwork = IPv4Network | IPv6Network
LONGEST_NAME, LONGEST_PATH = 200, 4000
"""Bytes of a file's name and path that leave room for what SQLite and a copy put aside add (Linux:
255 and 4095)."""


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """Where to listen. `path` for unix, `number` for fd, `host` and `port` for inet and inet6."""

    family: Literal["inet", "inet6", "unix", "fd"]
    host: str = ""
    port: int = 0
    path: str = ""
    number: int = -1


def socket_address(text: str) -> SocketAddress:
    """Raises ValueError that says what is allowed."""
    allowed = 'allowed: "inet:PORT@ADDRESS", "inet6:PORT@ADDRESS", "unix:/PATH", "fd:NUMBER"'
    family, _, rest = text.partition(":")
    if family in ("unix", "local") and rest.startswith("/"):
        if len(rest.encode()) > 107:
            raise ValueError("the path of a unix socket is at most 107 bytes")
        return SocketAddress("unix", path=rest)
    if family == "fd" and re.fullmatch(r"[0-9]{1,4}", rest):
        return SocketAddress("fd", number=int(rest))
    if family in ("inet", "inet6"):
        port, _, host = rest.partition("@")
        if re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65535:
            kind: Literal["inet", "inet6"] = "inet6" if family == "inet6" else "inet"
            return SocketAddress(
                kind,
                _host(host.strip("[]")) or ("::1" if kind == "inet6" else "127.0.0.1"),
                int(port),
            )
    raise ValueError(f"{text!r} is not a socket; {allowed}")


def host_and_port(text: str, default_port: int) -> tuple[str, int]:
    """("192.0.2.1", 53) from "192.0.2.1", "192.0.2.1:53", "[2001:db8::1]:53", "2001:db8::1" or
    "name:25". Raises ValueError."""
    match = re.fullmatch(
        r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?|([0-9A-Fa-f:]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)|([^:\s\[\]]+)(?::([0-9]{1,5}))?",
        text,
    )
    if match is None:
        raise ValueError(f'{text!r} is not "ADDRESS", "ADDRESS:PORT" or "[ADDRESS]:PORT"')
    host = match[1] or match[3] or match[4]
    port = int(match[2] or match[5] or default_port)
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is not between 0 and 65535")
    return _host(host), port


def _host(text: str) -> str:
    """Raises ValueError for what the system's resolver cannot even be asked."""
    try:
        text.encode("idna")
    except UnicodeError:
        raise ValueError(
            f"{text!r} is not a host: a label of its name is empty, too long or not a valid IDN"
        ) from None
    return text


def nameserver(text: str) -> tuple[str, int]:
    """(address, port). Raises ValueError."""
    host, port = host_and_port(text, 53)
    ipaddress.ip_address(host)
    if not port:
        raise ValueError(f"{text!r}: nothing answers at port 0")
    return host, port


@cache
def network(text: str) -> IPNetwork:
    """Raises ValueError."""
    return ipaddress.ip_network(text, strict=False)


def networks(texts: list[str]) -> tuple[IPNetwork, ...]:
    return tuple(network(text) for text in texts)


def name(text: str) -> Domain:
    """Raises ValueError."""
    found = domain.parse(text)
    if isinstance(found, Malformed):
        raise ValueError(f"{text!r} is not a domain name: {found.reason}")
    return found


def destination(text: str) -> str:
    """An address, or a domain that stands for all addresses at or below it, as the store spells
    them. Raises ValueError."""
    local, at, host = text.strip().rpartition("@")
    if at and not (local and len(local) <= 64 and local.isprintable() and " " not in local):
        raise ValueError(f"{text!r} is not a mail address")
    return f"{local}{at}{name(host)}"


def in_a_labels(address: str) -> str:
    """A configured mail address with its domain in the one form that mail and XML take: A-labels,
    lower case."""
    local, _, host = address.rpartition("@")
    found = domain.parse(host)
    return f"{local}@{found}" if isinstance(found, Domain) else address


def authserv_id(config: Config) -> str:
    """Ours, or the host's name: its full one, where that is not just what the loopback address is
    called first."""
    if config.authentication.authserv_id:
        return config.authentication.authserv_id
    full = socket.getfqdn().rstrip(".").lower()
    return socket.gethostname().lower() if full.partition(".")[0] == "localhost" else full


def _authserv_id(text: str) -> None:
    if not re.fullmatch(r"[!#$%&'*+.^_`{|}~0-9A-Za-z-]{1,255}", text) and isinstance(
        domain.parse(text), Malformed
    ):
        raise ValueError(f"{text!r} cannot stand in Authentication-Results; use the host's name")


def _address(text: str) -> None:
    """What a report's From can be: a dot-atom at a domain of two labels or more (RFC 9990 3.5.2 has
    the domain in the file name)."""
    local, _, host = text.rpartition("@")
    if len(local) > 64 or not all(
        re.fullmatch(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+", atom) for atom in local.split(".")
    ):
        raise ValueError(f"{text!r} is not a mail address")
    if "." not in name(host).name:
        raise ValueError(f"{text!r} is not a mail address: {host} is not a full domain name")


def _copy_to(text: str) -> None:
    if not text.startswith("/"):
        _address(text)


def _url(text: str) -> None:
    path = Path(text.removeprefix("sqlite:///"))
    if text.startswith("sqlite:////") and path.name:
        if len(os.fsencode(path)) > LONGEST_PATH or any(
            len(os.fsencode(part)) > LONGEST_NAME for part in path.parts
        ):
            raise ValueError(
                f"the path is too long; allowed: {LONGEST_NAME} bytes in each name, {LONGEST_PATH}"
                " in all"
            )
        return
    if urlsplit(text).scheme not in ("postgresql", "postgres"):
        raise ValueError(
            f'{text!r} is not a store; allowed: "sqlite:////PATH",'
            ' "postgresql://USER@HOST/DATABASE"'
        )


def _read_url(text: str) -> None:
    if urlsplit(text).scheme not in ("postgresql", "postgres"):
        raise ValueError(f'{text!r} is not a replica; allowed: "postgresql://USER@HOST/DATABASE"')


def _optional(check: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: check(text) if text else None


def _listen(text: str) -> None:
    """What would be a host without a port, such as "9893", is most likely a port without a host."""
    if not text.startswith("unix:/") and host_and_port(text, 0) != host_and_port(text, 1):
        raise ValueError(f'{text!r} is not "ADDRESS:PORT" or "unix:/PATH"')


def web_address(text: str) -> tuple[str, int]:
    """(IP address, port) of the dashboard. Raises ValueError."""
    host, port = host_and_port(text, 8894)
    try:
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)), port
    except ValueError:
        raise ValueError(f'{text!r} is not "ADDRESS:PORT"') from None


CHECKS: dict[str, dict[str, Callable[[str], object]]] = {
    "milter": {"socket": socket_address},
    "authentication": {
        "authserv_id": _optional(_authserv_id),
        "trusted_networks": network,
        "trusted_relays": network,
        "keep_results_from": network,
        "remove_authserv_ids": _authserv_id,
        "trusted_arc_sealers": name,
    },
    "dns": {"nameservers": nameserver},
    "store": {"url": _url, "read_url": _optional(_read_url)},
    "reporting": {
        "email": _optional(_address),
        "bounce_address": _optional(_address),
        "smtp": lambda text: host_and_port(text, 25),
        "dkim_domain": _optional(name),
        "dkim_selector": _optional(name),
        "rfc7489_destinations": name,
        "rfc9990_destinations": name,
        "never_report": destination,
        "copy_to": _optional(_copy_to),
    },
    "metrics": {"listen": _optional(_listen)},
    "web": {"listen": _optional(web_address)},
    "summary": {"to": _optional(_address)},
}
RULE_CHECKS: dict[str, Callable[[str], object]] = {
    "author_domains": name,
    "networks": network,
    "dkim": name,
    "spf": name,
    "ptr": name,
    "arc": name,
    "recipient_domains": name,
    "expires": _optional(date.fromisoformat),
}


IDENTITY_CHECKS: dict[str, Callable[[str], object]] = {
    "recipient_domains": name,
    "email": _address,
    "dkim_domain": _optional(name),
    "dkim_selector": _optional(name),
}


MAX_INTEGER = 2**63 - 1
"""What TOML has integers up to, and SQLite and PostgreSQL."""


def problems(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, what is wrong) for every value that its type alone does not refuse."""
    yield from _unfit((), config)
    for section, checks in CHECKS.items():
        table = getattr(config, section)
        for key, check in checks.items():
            yield from _failures((section, key), getattr(table, key), check)
    ids = [identity.lower() for identity in config.authentication.remove_authserv_ids]
    if len(ids) != len(set(ids)):
        yield ("authentication", "remove_authserv_ids"), "the same id is listed twice"
    limits = config.limits
    if limits.rsa_min_bits > limits.rsa_max_bits:
        text = f"{limits.rsa_min_bits} is more than rsa_max_bits, {limits.rsa_max_bits}"
        yield ("limits", "rsa_min_bits"), f"{text}: no RSA key would do"
    for index, rule in enumerate(config.policy.rules):
        yield from _rule_problems(("policy", "rules", str(index)), rule)
    for index, identity in enumerate(config.reporting.identities):
        for key, check in IDENTITY_CHECKS.items():
            path = ("reporting", "identities", str(index), key)
            yield from _failures(path, getattr(identity, key), check)


def _unfit(path: tuple[str, ...], section: msgspec.Struct) -> Iterator[tuple[tuple[str, ...], str]]:
    """Text that no path and no name server takes, numbers that no database holds, wherever they
    stand."""
    for key in section.__struct_fields__:
        value = getattr(section, key)
        for index, item in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(item, msgspec.Struct):
                yield from _unfit(
                    (*path, key, str(index)) if isinstance(value, list) else (*path, key), item
                )
            elif isinstance(item, str) and "\0" in item:
                yield (*path, key), "holds the character NUL; allowed: any text without it"
            elif isinstance(item, int) and item > MAX_INTEGER:
                yield (
                    (
                        *path,
                        key,
                    ),
                    f"{item} does not fit into 64 bits; allowed: at most {MAX_INTEGER}",
                )


def _rule_problems(
    path: tuple[str, ...], rule: PolicyRule
) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, check in RULE_CHECKS.items():
        yield from _failures((*path, key), getattr(rule, key), check)
    if not any(getattr(rule, key) for key in RULE_CHECKS if key != "expires"):
        yield (
            (*path, "action"),
            (
                "the rule has no condition and would match all mail; give at least one, e.g."
                " author_domains"
            ),
        )
    if rule.action == "tag" and not rule.tag:
        yield (*path, "tag"), 'action = "tag" needs a tag'


def _failures(
    path: tuple[str, ...], value: str | list[str], check: Callable[[str], object]
) -> Iterator[tuple[tuple[str, ...], str]]:
    for text in [value] if isinstance(value, str) else value:
        try:
            check(text)
        except ValueError as error:
            yield path, str(error)


def metrics_address(text: str) -> SocketAddress | None:
    """[metrics] listen; None where it is off."""
    if not text:
        return None
    if text.startswith("unix:"):
        return SocketAddress("unix", path=text.removeprefix("unix:"))
    host, port = host_and_port(text, 0)
    return SocketAddress("inet6" if ":" in host else "inet", host, port)

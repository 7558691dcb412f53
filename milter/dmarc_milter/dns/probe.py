"""Whether name servers can be used: they must know a name that exists, and no name that does
not."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from dmarc_milter.config import Config
from dmarc_milter.core.resolver import LookupFailed, NoAnswer, NoSuchName
from dmarc_milter.dns.nameservers import read_resolv_conf
from dmarc_milter.dns.resolver import RESOLV_CONF, DnsResolver, MessageResolver
from dmarc_milter.dns.waiting import EventLoop

TLD = "com"
"""A top-level domain that is there wherever mail of the Internet is judged: its name servers are
asked for."""
NOBODY = "dmarc-milter-probe-{}.com"
"""A name that nobody has, once twenty hexadecimal digits are filled in."""
MOST = 8
"""Name servers that are looked at."""


class Health(NamedTuple):
    """What was found out, each one line, "" where there is nothing to complain of."""

    problem: str = ""
    """Why the name servers cannot be used: none answers, or one denies what exists."""
    doubt: str = ""
    """What one of them makes up."""


def probe(config: Config, loop: EventLoop, timeout: float | None = None) -> Health:
    """Ask each name server by itself, all side by side. Takes at most `timeout` seconds ([dns]
    timeout) and one more."""
    seconds = timeout or config.dns.timeout
    named = servers(config)
    if not named:
        return Health("no name server is known")
    answers = _all_probed(named, loop, seconds)
    denied = [
        health.problem for health in answers if health.problem and not isinstance(health, _Silent)
    ]
    silent = [health.problem for health in answers if isinstance(health, _Silent)]
    if denied or len(silent) == len(answers):
        return Health((denied or silent)[0])
    return Health(doubt=next((health.doubt for health in answers if health.doubt), ""))


class _Silent(Health):
    """One server gave no answer; another may."""


def _all_probed(named: Sequence[str], loop: EventLoop, seconds: float) -> list[Health]:
    """In their order. One that could not be looked at at all counts as silent."""
    waiting, found = loop.current, dict[str, Health]()

    def look(server: str) -> None:
        try:
            found[server] = _probed(server, loop, seconds)
        finally:
            found.setdefault(server, _Silent(f"{server}: it could not be asked"))
            waiting.wake()

    for server in named:
        loop.spawn(partial(look, server))
    while len(found) < len(set(named)):
        loop.park()
    return [found[server] for server in named]


def _probed(server: str, loop: EventLoop, seconds: float) -> Health:
    dns = DnsResolver(loop, [server], timeout=seconds)
    try:
        return look_at(server, dns.for_message(seconds + 1))
    finally:
        dns.close()


def look_at(server: str, resolver: MessageResolver) -> Health:
    """What one name server makes of the two questions. `server` is its name for people."""
    try:
        resolver.ns(TLD)
    except NoAnswer:
        return Health(f"{server} is not usable: it denies that the top-level domain {TLD} exists")
    except LookupFailed as error:
        return _Silent(f"{server}: {error}")
    try:
        made_up = resolver.addresses(NOBODY.format(secrets.token_hex(10)), "A")
    except NoSuchName:
        return Health()
    except NoAnswer:
        return Health(doubt=f"{server} says that names exist which do not")
    except LookupFailed:
        return Health()
    return Health(doubt=f"{server} answers with {made_up[0]} for names that do not exist")


def servers(config: Config) -> Sequence[str]:
    """The name servers that are asked, as configured or as resolv.conf says now."""
    return (config.dns.nameservers or [server.text for server in read_resolv_conf(RESOLV_CONF)])[
        :MOST
    ]

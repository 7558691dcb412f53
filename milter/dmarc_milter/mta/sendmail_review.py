"""What the filters in a sendmail.mc mean for this milter (Sendmail's cf/README, "Adding Mail
Filters")."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dmarc_milter.config.checks import SocketAddress, socket_address
from dmarc_milter.mta.setup_lines import reachable

NAME = "dmarc-milter"
# Both patterns are anchored and their repetitions bounded, so linear.
FILTER = re.compile(
    r"^[ \t]{0,80}(?:INPUT_)?MAIL_FILTER\([ \t]{0,80}`([^`'\n]{1,100})',["
    r" \t]{0,80}`([^`'\n]{0,1000})'",
    re.MULTILINE,
)
NOCANONIFY = re.compile(r"^[ \t]{0,80}FEATURE\(`?nocanonify'?[ \t]{0,80}[,)]", re.MULTILINE)
CANONIFY_SOME = re.compile(
    r"^[ \t]{0,80}(?:FEATURE\(`?nocanonify'?[^)\n]{0,80}canonify_hosts|CANONIFY_DOMAIN)",
    re.MULTILINE,
)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def has_filter(text: str) -> bool:
    """Whether a filter of our name is there."""
    return any(match[1] == NAME for match in FILTER.finditer(text))


def warnings(text: str, socket: SocketAddress) -> Iterator[str]:
    """One sentence for each line that undoes what this milter is for. Lines that dnl takes out are
    nothing."""
    for match in FILTER.finditer(text):
        given = equates(match[2])
        ours = _is(given.get("S", ""), socket)
        if match[1] != NAME and ours:
            yield (
                f"the filter {match[1]} has this milter's socket too, so that every message"
                " would go through it twice: remove that line"
            )
        elif match[1] == NAME and not ours:
            yield (
                f"{NAME} has S={given.get('S', '')} there, which is not the socket of the"
                " configuration"
            )
        if match[1] == NAME and given.get("F", "") not in ("T", "R", "4"):
            yield (
                f"{NAME} has no F=T there: while the milter is down mail passes unchecked; F=T lets"
                " it wait"
            )


def looks_names_up(text: str) -> Iterator[str]:
    """One sentence where the lines let Sendmail write what the DNS says into From (cf/README,
    FEATURE(`nocanonify'))."""
    if not NOCANONIFY.search(text):
        yield (
            "FEATURE(`nocanonify') is not there: Sendmail writes the target of an alias into From"
            " after the milter has judged it"
        )
    elif CANONIFY_SOME.search(text):
        yield (
            "canonify_hosts or CANONIFY_DOMAIN there lets Sendmail write other names into From"
            " after the milter has judged it"
        )


def equates(text: str) -> dict[str, str]:
    """`S=inet:8891@localhost, F=T` by its letters."""
    pairs = (part.partition("=") for part in text.split(","))
    return {key.strip(): value.strip() for key, _, value in pairs}


def socket_of(endpoint: str) -> SocketAddress | None:
    """Sendmail's spelling of a socket: PATH, unix:PATH, inet:PORT@HOST, inet6:PORT@HOST."""
    try:
        return socket_address(f"unix:{endpoint}" if endpoint.startswith("/") else endpoint)
    except ValueError:
        return None


def is_same(there: SocketAddress, socket: SocketAddress) -> bool:
    """Whether two sockets of this host are one."""
    if there.family == "unix" or socket.family == "unix":
        return there == socket
    hosts = reachable(there), reachable(socket)
    return there.port == socket.port and (
        hosts[0] == hosts[1] or all(host in LOOPBACK for host in hosts)
    )


def _is(endpoint: str, socket: SocketAddress) -> bool:
    there = socket_of(endpoint)
    return there is not None and is_same(there, socket)

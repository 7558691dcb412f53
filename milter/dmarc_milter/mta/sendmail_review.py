"""What the filters in a sendmail.mc, and in the sendmail.cf in force, mean for this milter
(Sendmail's cf/README, "Adding Mail Filters"), and the commands that change them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.config.checks import SocketAddress, socket_address
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.core.text import printable
from dmarc_milter.mta import sendmail_cf
from dmarc_milter.mta.setup_lines import reachable

WHERE = "sendmail"
MC = Path("/etc/mail/sendmail.mc")
PLAIN = re.compile(r"[A-Za-z0-9._-]{1,60}")
NAME = "dmarc-milter"
# Both patterns are anchored and their repetitions bounded, so linear.
FILTER = re.compile(
    r"^[ \t]{0,80}(?:INPUT_)?MAIL_FILTER\([ \t]{0,80}`([^`'\n]{1,100})',["
    r" \t]{0,80}`([^`'\n]{0,1000})'",
    re.MULTILINE,
)
NOCANONIFY = re.compile(r"^[ \t]{0,80}FEATURE\(`?nocanonify'?[ \t]{0,80}[,)]", re.MULTILINE)
WHOLE = re.compile(
    r"[ \t]{0,80}(?:INPUT_)?MAIL_FILTER\([ \t]{0,80}`[^`'()]{1,100}'[ \t]{0,80},[ \t]{0,80}"
    r"`[^`'()]{0,1000}'[ \t]{0,80}\)[ \t]{0,80}(?:dnl.*)?$"
)
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


class MailFilter(NamedTuple):
    """`endpoint` as Sendmail spells it; `flags` is F=: T, R or 4 make mail wait or refuse it while
    the filter is down."""

    name: str
    endpoint: str
    flags: str


def of_mc(text: str) -> tuple[MailFilter, ...]:
    """As the lines stand."""
    return tuple(_filter(match[1], match[2]) for match in FILTER.finditer(text))


def of_cf(text: str) -> tuple[MailFilter, ...]:
    """Those that mail from outside passes: the X lines that InputMailFilters names, or what the
    first daemon has of its own (Installation and Operation Guide, 5.11)."""
    defined: dict[str, MailFilter] = {}
    order = ""
    for line in sendmail_cf.lines(text):
        if line[0] == "X":
            name, _, equates = line[1:].partition(",")
            defined[name.strip()] = _filter(name.strip(), equates)
    for name, value in sendmail_cf.options(text):
        if name == "inputmailfilters":
            order = value
    first = next(iter(sendmail_cf.daemons(text)), None)
    names = re.split(r"[,;]", order if first is None or first.filters is None else first.filters)
    return tuple(defined[name] for name in map(str.strip, names) if name in defined)


def _filter(name: str, text: str) -> MailFilter:
    given = equates(text)
    return MailFilter(name, given.get("S", ""), given.get("F", ""))


def is_ours(one: MailFilter, socket: SocketAddress) -> bool:
    """By the socket that it asks."""
    there = socket_of(one.endpoint)
    return there is not None and is_same(there, socket)


def attached(
    filters: Sequence[MailFilter], socket: SocketAddress, where: str, mc: Path
) -> Iterator[Finding]:
    """Whether mail from outside passes this milter, and what happens while it is down."""
    mine = next((one for one in filters if is_ours(one, socket)), None)
    if mine is None:
        named = next((one for one in filters if one.name == NAME), None)
        reason = (
            f"has S={printable(named.endpoint, 200)} for {named.name}, which is not its socket"
            if named
            else "does not name this milter"
        )
        text = f"{where} {reason}: mail does not go through it"
        yield Finding("error", WHERE, text, attach(mc, first=named is not None))
        return
    if mine.flags not in ("T", "R", "4"):
        yield Finding(
            "warning",
            WHERE,
            f"{where}: {printable(mine.name, 60)} has no F=T: while the milter is down mail passes"
            " unchecked; F=T lets it wait",
            attach(mc, first=True, name=mine.name),
        )
    yield Finding("ok", WHERE, f"{where}: mail reaches this milter")


def rebuild(mc: Path) -> str:
    """On Debian."""
    return f"make -C {shlex.quote(str(mc.parent))} restart"


def attach(mc: Path, *, first: bool, name: str = NAME) -> str:
    """Puts our lines into sendmail.mc, before other filters. `first`: a line that
    somebody else wrote for us goes, since `setup` leaves it as it is. Words where that line is not
    one that a command takes out whole."""
    file = "" if mc == MC else f" --sendmail-mc {shlex.quote(str(mc))}"
    steps = [f"dmarc-milter setup --mta sendmail{file} --apply", rebuild(mc)]
    lines = _defining(name, mc) if first else []
    if all(map(_is_whole, lines)):
        return " && ".join([*([_deletion(name, mc)] if lines else []), *steps])
    return f"take the whole filter {printable(name, 100)} out of {mc}, then: `{' && '.join(steps)}`"


def removal(names: Iterable[str], mc: Path) -> str:
    """Takes these filters out. "" where one of them is not there in a line of its own, so that a
    command would leave half of it, or in a list of filters, where its name would stay."""
    commands = []
    for name in dict.fromkeys(names):
        lines = _defining(name, mc)
        if not lines or not all(map(_is_whole, lines)) or _is_listed(name, mc):
            return ""
        commands.append(_deletion(name, mc))
    return " && ".join([*commands, rebuild(mc)])


def _defining(name: str, mc: Path) -> list[str]:
    """The lines of sendmail.mc in which a filter of that name begins; none where it cannot be
    read."""
    start = re.compile(rf"[ \t]{{0,80}}(?:INPUT_)?MAIL_FILTER\([ \t]{{0,80}}`{re.escape(name)}'")
    return [line for line in _lines(mc) if start.match(line)]


def _is_whole(line: str) -> bool:
    """Whether the macro ends in its line, and nothing but a comment comes after it."""
    return bool(PLAIN.fullmatch(line.partition("`")[2].partition("'")[0]) and WHOLE.match(line))


def _is_listed(name: str, mc: Path) -> bool:
    listed = re.compile(rf"(?:INPUT_MAIL_FILTERS|InputMailFilters).*\b{re.escape(name)}\b")
    return any(listed.search(line) for line in _lines(mc) if not line.lstrip().startswith("dnl"))


def _lines(mc: Path) -> list[str]:
    return (sendmail_cf.read(mc) or "").split("\n")


def _deletion(name: str, mc: Path) -> str:
    script = rf"/^[[:space:]]*\(INPUT_\)\{{0,1\}}MAIL_FILTER([[:space:]]*`{re.escape(name)}'/d"
    return f"sed -i {shlex.quote(script)} {shlex.quote(str(mc))}"

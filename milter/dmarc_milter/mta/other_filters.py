"""Other filters that see the same mail: which ones Postfix or Sendmail names, and who they are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.config.checks import SocketAddress
from dmarc_milter.mta import postfix_commands, proxy_filter, sendmail_review
from dmarc_milter.mta.postfix import (
    MasterCfService,
    MilterEntry,
    Postfix,
    address,
    elements,
)
from dmarc_milter.mta.postfix_review import is_ours

MILTER, CONTENT_FILTER, PROXY, POLICY = "milter", "content filter", "proxy", "policy service"
FILTER_SETTINGS = {"content_filter": CONTENT_FILTER, "smtpd_proxy_filter": PROXY}
RESTRICTIONS = tuple(
    f"smtpd_{stage}_restrictions"
    for stage in ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")
)


class FilterKind(NamedTuple):
    """A program: what its sockets, services and command lines are called, and the TCP ports that
    its own documents give it."""

    name: str
    words: re.Pattern[str]
    ports: frozenset[int] = frozenset()


def _kind(name: str, words: str, *ports: int) -> FilterKind:
    return FilterKind(name, re.compile(words, re.IGNORECASE), frozenset(ports))


KINDS = (
    _kind("OpenDMARC", "opendmarc", 8893, 54321),
    _kind("OpenDKIM", r"opendkim|dkim-filter", 8891, 12301),
    _kind("dkimpy-milter", "dkimpy", 8892),
    _kind("Rspamd", "rspamd|rmilter", 11332),
    _kind("Amavis", "amavis", 10024, 10026),
    _kind("SpamAssassin", "spamass|spamc|spamd", 783),
    _kind("an SPF policy service", "spf"),
    _kind("Sender ID milter", r"sid-?milter|sid-filter"),
    _kind("authentication_milter", r"authentication.?milter"),
    _kind("ClamAV", "clam", 7357),
    _kind("MIMEDefang", "mimedefang"),
    _kind("milter-greylist", "greylist"),
)
UNKNOWN = "another filter"


class Installed(NamedTuple):
    """A program whose configuration lies on this host. `facts` are words of
    `other_filter_files`."""

    kind: str
    file: str
    sockets: tuple[SocketAddress, ...] = ()
    facts: frozenset[str] = frozenset()


class OtherFilter(NamedTuple):
    """A filter that the MTA names. `role`: milter, content filter, proxy or policy service.
    `named`: where and how, in the MTA's spelling. `position`: -1 before this milter, 1 after it,
    0 where that cannot be said. `inbound`: whether mail of strangers passes it. `installed`: what
    its own files say; None where they were not found. `without`: what takes it out of there, for a
    proxy what gives it the mail after it is queued. `behind`: what puts this milter before it.
    Both are commands, or "" where there is none."""

    kind: str
    role: str
    named: str
    endpoint: str
    position: int = 0
    inbound: bool = True
    installed: Installed | None = None
    without: str = ""
    behind: str = ""


def of_postfix(
    files: Postfix, socket: SocketAddress, installed: Sequence[Installed] = ()
) -> tuple[OtherFilter, ...]:
    """Those in smtpd_milters, content_filter, smtpd_proxy_filter and check_policy_service, of
    main.cf and of each smtpd in master.cf, each once."""
    found = [*_milters(files, None, socket, installed), *_content_filters(files, None, installed)]
    found += _policy_services(files, installed)
    for service in files.smtpd():
        if "smtpd_milters" in service.options:
            found += _milters(files, service, socket, installed)
        found += _content_filters(files, service, installed)
    return tuple(dict.fromkeys(found))


def of_sendmail(
    filters: Sequence[sendmail_review.MailFilter],
    socket: SocketAddress,
    installed: Sequence[Installed] = (),
    mc: Path = sendmail_review.MC,
) -> tuple[OtherFilter, ...]:
    """All but the one that has our name or socket."""
    mine = [
        one.name == sendmail_review.NAME or sendmail_review.is_ours(one, socket) for one in filters
    ]
    ours = mine.index(True) if True in mine else -1
    found = []
    for index, one in enumerate(filters):
        if mine[index]:
            continue
        there = sendmail_review.socket_of(one.endpoint)
        own = _installed_at(there, installed)
        kind = own.kind if own else identify(f"{one.name} {one.endpoint}", there)
        found.append(
            OtherFilter(
                kind,
                MILTER,
                f"INPUT_MAIL_FILTER(`{one.name}')",
                one.endpoint,
                _place_beside(index, ours),
                True,
                own or _of(kind, installed),
                sendmail_review.removal(one.name, mc),
                sendmail_review.attach(mc, first=True),
            )
        )
    return tuple(found)


def same_socket(socket: SocketAddress, installed: Sequence[Installed]) -> Installed | None:
    """A program that is told to listen where this milter does: only one of the two can."""
    return _installed_at(socket, installed)


def identify(text: str, there: SocketAddress | None) -> str:
    """Whose this is, by words in its name, path or command, else by its port; UNKNOWN."""
    for kind in KINDS:
        if kind.words.search(text):
            return kind.name
    if there is not None and there.family in ("inet", "inet6"):
        for kind in KINDS:
            if there.port in kind.ports:
                return kind.name
    return UNKNOWN


class Known(NamedTuple):
    """An element of smtpd_milters and whose it is; `kind` is "" for this milter."""

    entry: MilterEntry
    kind: str
    installed: Installed | None = None


def known(
    files: Postfix,
    service: MasterCfService | None,
    socket: SocketAddress,
    installed: Sequence[Installed],
) -> tuple[Known, ...]:
    """The elements in their order, of a service or of main.cf. main.cf's are for all: a path counts
    as a chrooted smtpd sees it, where one is."""
    services = [service] if service else files.smtpd()
    chrooted = any(map(files.is_chrooted, services))
    found = []
    for entry in files.milters(service=service):
        there = address(entry.endpoint, files.queue_directory, chrooted=chrooted)
        own = _installed_at(there, installed)
        kind = own.kind if own else identify(entry.endpoint, there)
        if _ours(files, entry, socket, chrooted):
            kind, own = "", None
        found.append(Known(entry, kind, own or _of(kind, installed)))
    return tuple(found)


def _milters(
    files: Postfix,
    service: MasterCfService | None,
    socket: SocketAddress,
    installed: Sequence[Installed],
) -> Iterator[OtherFilter]:
    found = known(files, service, socket, installed)
    ours = next((index for index, one in enumerate(found) if not one.kind), -1)
    named = f"{service.name}: smtpd_milters" if service else "smtpd_milters"
    inbound = service is None or not service.is_submission
    mine = [one.entry for one in found if not one.kind]
    others = [one.entry for one in found if one.kind]
    behind = postfix_commands.set_milters([*mine, *others], service)
    for index, one in enumerate(found):
        if one.kind:
            yield OtherFilter(
                one.kind,
                MILTER,
                named,
                one.entry.endpoint,
                _place_beside(index, ours),
                inbound,
                one.installed,
                postfix_commands.set_milters(
                    [entry.entry for entry in found if entry is not one], service
                ),
                behind,
            )


def _place_beside(index: int, ours: int) -> int:
    """OtherFilter.position; `ours` is -1 where this milter is not in the list."""
    return 0 if ours < 0 else (1 if index > ours else -1)


def _ours(files: Postfix, milter: MilterEntry, socket: SocketAddress, chrooted: bool) -> bool:
    return any(is_ours(milter, files, socket, chrooted=way) for way in {chrooted, False})


def _content_filters(
    files: Postfix, service: MasterCfService | None, installed: Sequence[Installed]
) -> Iterator[OtherFilter]:
    """`content_filter = TRANSPORT:NEXTHOP`, `smtpd_proxy_filter = HOST:PORT` (postconf(5))."""
    for setting, role in FILTER_SETTINGS.items():
        if service is not None and setting not in service.options:
            continue
        value = files.value(setting, service)
        if not value:
            continue
        kind = identify(f"{value} {_command(files, value)}", _tcp(value))
        where = f"{service.name}: {setting}" if service else setting
        inbound = service is None or not service.is_submission
        without = (
            proxy_filter.remedy(files, service, value)
            if role == PROXY
            else postfix_commands.set_value(setting, "", service)
        )
        yield OtherFilter(kind, role, where, value, 0, inbound, _of(kind, installed), without)


def _command(files: Postfix, value: str) -> str:
    """The command line of the master.cf service that a transport names."""
    name = value.partition(":")[0]
    return " ".join(
        " ".join(service.arguments) for service in files.services if service.name == name
    )


def _tcp(value: str) -> SocketAddress | None:
    """HOST:PORT at the end of a transport and next hop."""
    port = value.rpartition(":")[2]
    return (
        SocketAddress("inet", "127.0.0.1", int(port)) if re.fullmatch("[0-9]{1,5}", port) else None
    )


def _policy_services(files: Postfix, installed: Sequence[Installed]) -> Iterator[OtherFilter]:
    """check_policy_service of an SPF checker (SMTPD_POLICY_README); others see no author."""
    for setting in RESTRICTIONS:
        words = elements(files.value(setting))
        for index, (word, following) in enumerate(itertools.pairwise(words)):
            if word != "check_policy_service":
                continue
            named = following.strip("{} ").split(",")[0]
            name = named.rpartition("/")[2] if named.startswith("unix:") else named
            if re.search("spf", f"{named} {_command(files, name)}", re.IGNORECASE):
                kind = "an SPF policy service"
                rest = list(words)
                del rest[index : index + 2]
                without = postfix_commands.set_value(setting, ", ".join(rest))
                yield OtherFilter(
                    kind, POLICY, setting, named, -1, True, _of(kind, installed), without
                )


def _installed_at(there: SocketAddress | None, installed: Sequence[Installed]) -> Installed | None:
    return next(
        (
            one
            for one in installed
            if there is not None
            and any(sendmail_review.is_same(there, socket) for socket in one.sockets)
        ),
        None,
    )


def _of(kind: str, installed: Sequence[Installed]) -> Installed | None:
    return next((one for one in installed if one.kind == kind), None)

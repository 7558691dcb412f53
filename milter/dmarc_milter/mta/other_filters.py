"""Other filters that see the same mail: which ones Postfix or Sendmail names, and who they are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.config.checks import SocketAddress
from dmarc_milter.mta import postfix_commands, proxy_filter, sendmail_review
from dmarc_milter.mta.milter_lists.kinds import (
    RIVALS,
    Installed,
    identify,
    installed_at,
    of_kind,
)
from dmarc_milter.mta.milter_lists.wanted import MilterLists
from dmarc_milter.mta.postfix import MasterCfService, Postfix, elements

MILTER, CONTENT_FILTER, PROXY, POLICY = "milter", "content filter", "proxy", "policy service"
FILTER_SETTINGS = {"content_filter": CONTENT_FILTER, "smtpd_proxy_filter": PROXY}
RESTRICTIONS = tuple(
    f"smtpd_{stage}_restrictions"
    for stage in ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")
)


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
    files: Postfix,
    socket: SocketAddress,
    installed: Sequence[Installed] = (),
    lists: MilterLists | None = None,
) -> tuple[OtherFilter, ...]:
    """Those in smtpd_milters, content_filter, smtpd_proxy_filter and check_policy_service, of
    main.cf and of each smtpd in master.cf, each once; and what judges this host's own mail."""
    lists = lists or MilterLists(files, socket, installed)
    found = [*_milters(lists, None), *_content_filters(files, None, installed)]
    found += _policy_services(files, installed)
    for service in files.smtpd():
        if "smtpd_milters" in service.options:
            found += _milters(lists, service)
        found += _content_filters(files, service, installed)
    found += _rivals_elsewhere(lists)
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
    kinds = [_kind_in_sendmail(one, installed) for one in filters]
    found = []
    for index, one in enumerate(filters):
        if mine[index]:
            continue
        own = installed_at(sendmail_review.socket_of(one.endpoint), installed)
        kind = kinds[index]
        same = [
            each.name
            for each, its, is_mine in zip(filters, kinds, mine, strict=True)
            if its == kind and not is_mine
        ]
        found.append(
            OtherFilter(
                kind,
                MILTER,
                f"INPUT_MAIL_FILTER(`{one.name}')",
                one.endpoint,
                _place_beside(index, ours),
                True,
                own or of_kind(kind, installed),
                sendmail_review.removal(same, mc),
                sendmail_review.attach(mc, first=True),
            )
        )
    return tuple(found)


def _kind_in_sendmail(one: sendmail_review.MailFilter, installed: Sequence[Installed]) -> str:
    there = sendmail_review.socket_of(one.endpoint)
    own = installed_at(there, installed)
    return own.kind if own else identify(f"{one.name} {one.endpoint}", there)


def same_socket(socket: SocketAddress, installed: Sequence[Installed]) -> Installed | None:
    """A program that is told to listen where this milter does: only one of the two can."""
    return installed_at(socket, installed)


def _milters(lists: MilterLists, service: MasterCfService | None) -> Iterator[OtherFilter]:
    found = lists.known(service)
    ours = next((index for index, one in enumerate(found) if not one.kind), -1)
    named = f"{service.name}: smtpd_milters" if service else "smtpd_milters"
    inbound = service is None or not service.is_submission
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
                lists.retire(one.kind) if lists.leaves(one) else "",
                lists.command(service),
            )


def _rivals_elsewhere(lists: MilterLists) -> Iterator[OtherFilter]:
    """In lists that mail from outside does not pass: they are asked about this host's own mail."""
    for where, known in lists.of_own_mail():
        for one in known:
            if one.kind in RIVALS:
                yield OtherFilter(
                    one.kind,
                    MILTER,
                    where,
                    one.entry.endpoint,
                    0,
                    False,
                    one.installed,
                    lists.retire(one.kind),
                )


def _place_beside(index: int, ours: int) -> int:
    """OtherFilter.position; `ours` is -1 where this milter is not in the list."""
    return 0 if ours < 0 else (1 if index > ours else -1)


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
        yield OtherFilter(kind, role, where, value, 0, inbound, of_kind(kind, installed), without)


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
        found: list[int] = []
        for index, (word, following) in enumerate(itertools.pairwise(words)):
            if word == "check_policy_service" and _checks_spf(files, following):
                found.append(index)
        out = {at + step for at in found for step in (0, 1)}
        rest = ", ".join(word for at, word in enumerate(words) if at not in out)
        for index in found:
            kind = "an SPF policy service"
            yield OtherFilter(
                kind,
                POLICY,
                setting,
                _policy_name(words[index + 1]),
                -1,
                True,
                of_kind(kind, installed),
                postfix_commands.set_value(setting, rest),
            )


def _policy_name(element: str) -> str:
    return element.strip("{} ").split(",")[0]


def _checks_spf(files: Postfix, element: str) -> bool:
    named = _policy_name(element)
    name = named.rpartition("/")[2] if named.startswith("unix:") else named
    return bool(re.search("spf", f"{named} {_command(files, name)}", re.IGNORECASE))

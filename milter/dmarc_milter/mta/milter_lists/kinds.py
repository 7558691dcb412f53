"""Whose a milter is: this one, or which of the programs that are known here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from dmarc_milter.config.checks import SocketAddress
from dmarc_milter.mta import sendmail_review
from dmarc_milter.mta.milter_lists.attached import is_ours
from dmarc_milter.mta.postfix import MasterCfService, MilterEntry, Postfix, address


class FilterKind(NamedTuple):
    """A program: what its sockets, services and command lines are called, and the TCP ports that
    its own documents give it and this milter does not use."""

    name: str
    words: re.Pattern[str]
    ports: frozenset[int] = frozenset()


def _kind(name: str, words: str, *ports: int) -> FilterKind:
    return FilterKind(name, re.compile(words, re.IGNORECASE), frozenset(ports))


KINDS = (
    _kind("OpenDMARC", "opendmarc", 54321),
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
"""8893 is OpenDMARC's too, and our own: there its own configuration must say that it is."""
UNKNOWN = "another filter"
RIVALS = frozenset({"OpenDMARC", "Sender ID milter", "authentication_milter"})
"""They do what this milter does."""

VERIFIES, SIGNS, WRITES_RESULTS, REFUSES, REPORTS, JUDGES = (
    "verifies",
    "signs",
    "writes Authentication-Results",
    "refuses",
    "sends reports",
    "judges DMARC",
)
"""What the configuration of a program says that it does."""


class Installed(NamedTuple):
    """A program whose configuration lies on this host. `facts`: which of these words."""

    kind: str
    file: str
    sockets: tuple[SocketAddress, ...] = ()
    facts: frozenset[str] = frozenset()


class Known(NamedTuple):
    """An element of a list of milters and whose it is; `kind` is "" for this milter."""

    entry: MilterEntry
    kind: str
    installed: Installed | None = None


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


def known(
    files: Postfix,
    service: MasterCfService | None,
    socket: SocketAddress,
    installed: Sequence[Installed],
    name: str = "smtpd_milters",
) -> tuple[Known, ...]:
    """The elements in their order, of a service or of main.cf. main.cf's are for all: a path counts
    as a chrooted smtpd sees it, where one is."""
    services = [service] if service else files.smtpd()
    chrooted = any(map(files.is_chrooted, services))
    found = []
    for entry in files.milters(name, service):
        there = address(entry.endpoint, files.queue_directory, chrooted=chrooted)
        own = installed_at(there, installed)
        kind = own.kind if own else identify(entry.endpoint, there)
        if any(is_ours(entry, files, socket, chrooted=way) for way in {chrooted, False}):
            kind, own = "", None
        found.append(Known(entry, kind, own or _likely(kind, there, installed)))
    return tuple(found)


def only_verifies(one: Known) -> bool:
    """An OpenDKIM that does what this milter does."""
    return one.kind == "OpenDKIM" and one.installed is not None and _is_verifier(one.installed)


def _is_verifier(own: Installed) -> bool:
    return VERIFIES in own.facts and SIGNS not in own.facts


def _likely(
    kind: str, there: SocketAddress | None, installed: Sequence[Installed]
) -> Installed | None:
    """By its kind alone. One that only verifies, at a socket that its file names, says nothing of
    another socket: a second OpenDKIM that signs is often there."""
    own = of_kind(kind, installed)
    if own is not None and own.sockets and there is not None and _is_verifier(own):
        return None
    return own


def installed_at(there: SocketAddress | None, installed: Sequence[Installed]) -> Installed | None:
    """The program that is told to listen there."""
    return next(
        (
            one
            for one in installed
            if there is not None
            and any(sendmail_review.is_same(there, socket) for socket in one.sockets)
        ),
        None,
    )


def of_kind(kind: str, installed: Sequence[Installed]) -> Installed | None:
    """The first of that name."""
    return next((one for one in installed if one.kind == kind), None)

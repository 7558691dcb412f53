"""What to switch off in other filters, and in which order they stand: one finding for each. What
they do to our field was seen with Debian's packages (docs/how-to/other-filters.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dmarc_milter.config.checks import SocketAddress
from dmarc_milter.core.check_finding import LEVELS, Finding
from dmarc_milter.core.text import printable
from dmarc_milter.mta.other_filter_files import (
    JUDGES,
    REFUSES,
    REPORTS,
    SIGNS,
    VERIFIES,
    WRITES_RESULTS,
)
from dmarc_milter.mta.other_filters import (
    CONTENT_FILTER,
    POLICY,
    PROXY,
    Installed,
    Known,
    OtherFilter,
    known,
    same_socket,
)
from dmarc_milter.mta.postfix import Postfix

WHERE = "filters"
NO_FACTS = Installed("", "")
RANKS = {"": 0, "milter-greylist": 1, "OpenDKIM": 3, "dkimpy-milter": 3}
"""Where each stands in smtpd_milters: this milter, what only defers, what filters (2), what
signs."""


def advice(
    others: Sequence[OtherFilter], installed: Sequence[Installed], socket: SocketAddress
) -> tuple[Finding, ...]:
    """The gravest first. error: they break what this milter does; warning: mail is judged twice;
    note: what to know."""
    found = [finding for one in others for finding in _about(one)]
    rival = same_socket(socket, installed)
    if rival:
        found.append(
            Finding(
                "error",
                WHERE,
                f"{rival.file} tells {rival.kind} to listen where this milter does: only one of"
                " them can, and the MTA asks whoever it is",
                f"systemctl disable --now {rival.kind.lower()}",
            )
        )
    attached = {one.kind for one in others} | ({rival.kind} if rival else set())
    found += [
        Finding(
            "note",
            WHERE,
            "OpenDMARC is installed but the MTA does not name it: it can go",
            "apt remove opendmarc",
        )
        for one in installed
        if one.kind == "OpenDMARC" and one.kind not in attached
    ]
    return tuple(sorted(dict.fromkeys(found), key=lambda one: -LEVELS.index(one.level)))


def order(
    files: Postfix, socket: SocketAddress, installed: Sequence[Installed]
) -> Iterator[Finding]:
    """The order in which the milters of main.cf should stand, where they do not: this one, what
    filters, what signs; without what would judge again."""
    present = known(files, None, socket, installed)
    if not any(not one.kind for one in present):
        return
    wanted = sorted((one for one in present if not _is_rival(one)), key=_rank)
    if list(present) == wanted:
        return
    line = printable(", ".join(one.entry.text for one in wanted), 2000)
    yield Finding(
        "warning",
        WHERE,
        "the order in smtpd_milters should be: this milter, what filters, what signs"
        + ("; without what judges again" if len(wanted) < len(present) else ""),
        f"postconf -e 'smtpd_milters = {line}' && postfix reload" if "'" not in line else "",
    )


def _rank(one: Known) -> int:
    return RANKS.get(one.kind, 2)


def _is_rival(one: Known) -> bool:
    only_verifies = one.installed is not None and one.installed.facts == {VERIFIES}
    return OF_KIND.get(one.kind) is _rival or (OF_KIND.get(one.kind) is _dkim and only_verifies)


def _about(one: OtherFilter) -> Iterator[Finding]:
    if one.role == PROXY:
        yield Finding(
            "error",
            WHERE,
            f"{_who(one)}: behind smtpd_proxy_filter no milter sees a message, so nothing is"
            " judged; give the filter the mail after it is queued",
            one.instead,
        )
        return
    if one.kind in OF_KIND:
        yield from OF_KIND[one.kind](one)


def _who(one: OtherFilter) -> str:
    """Printable whatever the MTA's file holds."""
    return printable(f"{one.kind} ({one.named}: {one.endpoint})", 300)


def _rival(one: OtherFilter) -> Iterator[Finding]:
    """It does the same as this milter."""
    service = one.kind.lower()
    first = (
        "dmarc-milter import /etc/opendmarc.conf (it translates its settings); then "
        if one.kind == "OpenDMARC"
        else ""
    )
    yield Finding(
        "warning",
        WHERE,
        f"{_who(one)} judges the same mail a second time and writes its own result under this"
        " host's name",
        f"{first}take it out of {one.named}; systemctl disable --now {service}",
    )


def _dkim(one: OtherFilter) -> Iterator[Finding]:
    own = one.installed
    if own is not None and VERIFIES not in own.facts:
        yield Finding("note", WHERE, f"{_who(one)} only signs: that is right")
    elif not one.inbound:
        yield Finding("note", WHERE, f"{_who(one)} sees mail of your own users alone: right")
    elif own is None:
        yield Finding(
            "warning",
            WHERE,
            f"{_who(one)}: its configuration was not found; where it verifies it removes our"
            " Authentication-Results",
            f"`Mode s` in the configuration of {one.kind}",
        )
    elif SIGNS not in own.facts:
        yield Finding(
            "error" if one.position >= 0 else "warning",
            WHERE,
            f"{_who(one)} only verifies, as this milter does, and removes our"
            " Authentication-Results if it comes after us",
            f"take it out of {one.named}; systemctl disable --now {one.kind.lower()}",
        )
    else:
        yield Finding(
            "error" if one.position >= 0 else "warning",
            WHERE,
            f"{_who(one)} verifies as well as signs (its Mode), and removes our"
            " Authentication-Results if it comes after us",
            f"`Mode s` in {own.file}, then systemctl restart {one.kind.lower()}",
        )


def _rspamd(one: OtherFilter) -> Iterator[Finding]:
    facts = (one.installed or NO_FACTS).facts
    if WRITES_RESULTS in facts:
        yield Finding(
            "error" if one.position >= 0 else "warning",
            WHERE,
            f"{_who(one)} writes Authentication-Results itself (milter_headers) and removes ours"
            " if it comes after us",
            "take authentication-results out of `use` in /etc/rspamd/local.d/milter_headers.conf;"
            " systemctl reload rspamd",
        )
    if {REFUSES, REPORTS} & facts:
        yield Finding(
            "warning",
            WHERE,
            f"{_who(one)} applies DMARC policies or sends DMARC reports too: let one of the two do"
            " it",
            "`actions = { }` and `reporting { enabled = false; }` in"
            " /etc/rspamd/local.d/dmarc.conf; systemctl reload rspamd",
        )
    elif JUDGES in facts or one.installed is None:
        yield Finding(
            "note",
            WHERE,
            f"{_who(one)} checks SPF, DKIM and DMARC again for its score, which does no harm;"
            " signing (dkim_signing) stays there",
        )


def _amavis(one: OtherFilter) -> Iterator[Finding]:
    if VERIFIES in (one.installed or NO_FACTS).facts:
        yield Finding(
            "warning",
            WHERE,
            f"{_who(one)} verifies DKIM again, with the client's address lost",
            "$enable_dkim_verification = 0; in /etc/amavis/conf.d/50-user; systemctl restart"
            " amavis",
        )
    else:
        yield Finding("note", WHERE, f"{_who(one)} comes after this milter: that is right")


def _spamassassin(one: OtherFilter) -> Iterator[Finding]:
    if one.position < 0:
        yield Finding(
            "error",
            WHERE,
            f"{_who(one)} rewrites what it takes for spam before this milter verifies it: the"
            " signature breaks, and genuine mail is refused",
            f"put this milter before it in {one.named}",
        )
        return
    yield Finding(
        "note",
        WHERE,
        f"{_who(one)} can score by our Authentication-Results; the rules are in"
        " docs/how-to/other-filters.md",
    )


def _spf(one: OtherFilter) -> Iterator[Finding]:
    own = one.installed
    if own is not None and REFUSES not in own.facts:
        return
    how = (
        f"HELO_reject = False and Mail_From_reject = False in {own.file}, or take it out of"
        if own
        else "take it out of"
    )
    yield Finding(
        "warning",
        WHERE,
        f"{_who(one)} refuses by SPF alone, before DKIM and DMARC are judged: forwarded mail is"
        " lost that would pass",
        f"{how} {one.named}",
    )


def _unknown(one: OtherFilter) -> Iterator[Finding]:
    if one.role in (CONTENT_FILTER, POLICY) or one.position > 0:
        return
    yield Finding(
        "note",
        WHERE,
        f"{_who(one)}: not known here; what changes a message belongs after this milter",
    )


OF_KIND: dict[str, Callable[[OtherFilter], Iterator[Finding]]] = {
    "OpenDMARC": _rival,
    "Sender ID milter": _rival,
    "authentication_milter": _rival,
    "OpenDKIM": _dkim,
    "dkimpy-milter": _dkim,
    "Rspamd": _rspamd,
    "Amavis": _amavis,
    "SpamAssassin": _spamassassin,
    "an SPF policy service": _spf,
    "another filter": _unknown,
}

"""What to switch off in other filters, and in which order they stand: one finding for each. What
they do to our field was seen with Debian's packages (docs/how-to/other-filters.md)."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence

from dmarc_milter.config.checks import SocketAddress
from dmarc_milter.core.check_finding import LEVELS, Finding
from dmarc_milter.core.text import printable
from dmarc_milter.mta.milter_lists.kinds import (
    JUDGES,
    REFUSES,
    REPORTS,
    RIVALS,
    SIGNS,
    VERIFIES,
    WRITES_RESULTS,
    Installed,
)
from dmarc_milter.mta.milter_lists.wanted import MilterLists
from dmarc_milter.mta.other_filters import (
    CONTENT_FILTER,
    POLICY,
    PROXY,
    OtherFilter,
    same_socket,
)
from dmarc_milter.mta.postfix import Postfix

WHERE = "filters"
NO_FACTS = Installed("", "")
UNITS = {"Sender ID milter": "sid-milter", "authentication_milter": "authentication_milter"}
"""Of systemd, where it is not the program's name."""
CONFIGURATION = {
    "OpenDKIM": "/etc/opendkim.conf",
    "dkimpy-milter": "/etc/dkimpy-milter/dkimpy-milter.conf",
    "Rspamd": "/etc/rspamd",
}
OUR_FIELD_OUT = (
    r"s/((?<![\w-])use\s*[=:]?\s*\[[^\]]*?),\s*\"?authentication-results\"?(?=\s*[],])/$1/g;"
    r" s/((?<![\w-])use\s*[=:]?\s*\[\s*)\"?authentication-results\"?\s*(?:,\s*|(?=\]))/$1/g;"
    r" s/(?<![\w-])use\s*[=:]\s*\"?authentication-results\"?[ \t]*(?:;|$)//gm"
)
"""Perl: the routine goes out of `use`, the others stay, and so does what `routines` says of it."""
RSPAMD_DMARC_OFF = (
    r"s/\b(reject|quarantine)\s*=\s*\"?(reject|quarantine|soft.reject)\"?\s*;?//g;"
    r" s/\breporting\s*=\s*true/reporting = false/g;"
    r" s/(\breporting\s*\{[^}]*?enabled\s*=\s*)true/${1}false/g"
)
"""Perl: no policy is applied and no report sent; all other settings stay."""


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
                _another_socket(rival, others),
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
    files: Postfix,
    socket: SocketAddress,
    installed: Sequence[Installed],
    lists: MilterLists | None = None,
) -> Iterator[Finding]:
    """The order in which the milters of main.cf should stand, where they do not: this one, what
    filters, what signs; without what would judge again."""
    lists = lists or MilterLists(files, socket, installed)
    present, wanted = lists.known(None), lists.wanted()
    if all(one.kind for one in present) or [one.entry.endpoint for one in present] == [
        entry.endpoint for entry in wanted
    ]:
        return
    yield Finding(
        "warning",
        WHERE,
        "the order in smtpd_milters should be: this milter, what filters, what signs"
        + ("; without what judges again" if len(wanted) < len(present) else ""),
        lists.command(),
    )


def _another_socket(rival: Installed, others: Sequence[OtherFilter]) -> str:
    """What judges again goes, out of lists that name it at another socket too; what signs or
    filters is needed, and moves."""
    if rival.kind not in RIVALS:
        return f"give {rival.kind} another socket in {rival.file} and in the MTA's file"
    named = next((one for one in others if one.kind == rival.kind), None)
    return _retired(named) if named else f"systemctl disable --now {rival.kind.lower()}"


def _about(one: OtherFilter) -> Iterator[Finding]:
    if one.role == PROXY:
        yield Finding(
            "error",
            WHERE,
            f"{_who(one)}: behind smtpd_proxy_filter no milter sees a message, so nothing is"
            " judged; give the filter the mail after it is queued",
            one.without,
        )
        return
    if one.kind in OF_KIND:
        yield from OF_KIND[one.kind](one)


def _who(one: OtherFilter) -> str:
    """Printable whatever the MTA's file holds."""
    return printable(f"{one.kind} ({one.named}: {one.endpoint})", 300)


def _rival(one: OtherFilter) -> Iterator[Finding]:
    """It does the same as this milter."""
    settings = (
        "; `dmarc-milter import /etc/opendmarc.conf` shows its settings as ours"
        if one.kind == "OpenDMARC"
        else ""
    )
    yield Finding(
        "warning",
        WHERE,
        f"{_who(one)} judges the same mail a second time and writes its own result under this"
        f" host's name{settings}",
        _retired(one),
    )


def _retired(one: OtherFilter) -> str:
    """Taken out of the mail server's file, then stopped: mail waits for one that is stopped and
    still named."""
    stop = f"systemctl disable --now {UNITS.get(one.kind, one.kind.lower())}"
    if one.without:
        return f"{one.without} && {stop}"
    return printable(
        f"take {one.kind} ({one.endpoint}) out of every list of milters by hand, then: {stop}", 400
    )


def _file(one: OtherFilter) -> str:
    return shlex.quote(one.installed.file) if one.installed else CONFIGURATION[one.kind]


def _amavis_file(one: OtherFilter) -> str:
    """The last one that Amavis reads."""
    file = _file(one)
    return f"{file}/60-dmarc-milter" if file.strip("'").endswith("conf.d") else file


def _mode_s(one: OtherFilter) -> str:
    """opendkim.conf(5), and dkimpy-milter.conf(5) in the same form."""
    file = _file(one)
    return (
        f"sed -i.bak '/^[[:space:]]*Mode[[:space:]]/Id' {file} &&"
        f" printf '\\nMode s\\n' >> {file} && systemctl restart {one.kind.lower()}"
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
            f"set Mode s in the configuration of {one.kind}, where it runs",
        )
    elif SIGNS not in own.facts:
        yield Finding(
            "error" if one.position >= 0 else "warning",
            WHERE,
            f"{_who(one)} only verifies, as this milter does, and removes our"
            " Authentication-Results if it comes after us",
            _retired(one),
        )
    else:
        yield Finding(
            "error" if one.position >= 0 else "warning",
            WHERE,
            f"{_who(one)} verifies as well as signs (its Mode), and removes our"
            " Authentication-Results if it comes after us",
            _mode_s(one),
        )


def _rspamd(one: OtherFilter) -> Iterator[Finding]:
    facts = (one.installed or NO_FACTS).facts
    if WRITES_RESULTS in facts:
        yield Finding(
            "error" if one.position >= 0 else "warning",
            WHERE,
            f"{_who(one)} writes Authentication-Results itself (`use` of milter_headers.conf) and"
            " removes ours if it comes after us",
            f"perl -0pi.bak -e '{OUR_FIELD_OUT}' {_file(one)}/[lo]*.d/milter_headers.conf &&"
            " systemctl reload rspamd",
        )
    if {REFUSES, REPORTS} & facts:
        yield Finding(
            "warning",
            WHERE,
            f"{_who(one)} applies DMARC policies or sends DMARC reports too: let one of the two do"
            " it",
            f"perl -0pi.bak -e '{RSPAMD_DMARC_OFF}' {_file(one)}/[lo]*.d/dmarc.conf &&"
            " systemctl reload rspamd",
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
            f"printf '%s\\n' '$enable_dkim_verification = 0;' '1;' >> {_amavis_file(one)} &&"
            " systemctl restart amavis",
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
            one.behind,
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
    yield Finding(
        "warning",
        WHERE,
        f"{_who(one)} refuses by SPF alone, before DKIM and DMARC are judged: forwarded mail is"
        " lost that would pass",
        f"sed -i.bak -E '/^(HELO|Mail_From)_reject/Id' {_file(one)} && printf '%s\\n' ''"
        f" 'HELO_reject = False' 'Mail_From_reject = False' >> {_file(one)}"
        if own
        else one.without,
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

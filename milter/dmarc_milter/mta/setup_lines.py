"""The lines that attach an MTA to this milter, for `make run`, for `setup` and for the
snippets in conf/."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dmarc_milter.config.checks import SocketAddress

# accept would turn a dropped connection into a way around the checks: both MTAs are told to answer
# 451 instead (F=T). The time limits cover the DNS budget of one message and a busy minute besides.

REASONS = {
    "smtpd_milters": (
        "dmarc-milter comes before milters that sign or filter: they see what it wrote.",
        "tempfail: while it is down mail waits. content_timeout: slow DNS may take a while.",
    ),
    "smtpd_forbid_bare_newline": (
        "A lone LF must not end a message: it could carry another past every check"
        " (CVE-2023-51764).",
    ),
    "smtpd_forbid_bare_newline_exclusions": (
        "Old programs of your own network may still send it.",
    ),
    "confDONT_EXPAND_CNAMES": (
        "Sendmail must not write the names to which the sender's DNS leads into From,",
        "after the milter has judged it:",
    ),
    "INPUT_MAIL_FILTER": (
        "dmarc-milter comes before filters that sign or filter: they see what it wrote.",
        "F=T: while it is down mail waits. T=: slow DNS may take a while.",
    ),
}
"""Why each line is there, said above it; by the setting's name."""

POSTFIX_STRICT = (
    "smtpd_forbid_bare_newline = yes",
    "smtpd_forbid_bare_newline_exclusions = $mynetworks",
)
"""Ends of lines that differ between servers let one message carry another past every check
(CVE-2023-51764)."""


SENDMAIL_STRICT = ("define(`confDONT_EXPAND_CNAMES', `True')dnl", "FEATURE(`nocanonify')dnl")
"""Without these Sendmail writes the names to which the sender's DNS leads into From, after the
milter has judged it."""


def postfix_main_cf(address: SocketAddress) -> str:
    """The main.cf line for Postfix 3.0 or later, in the form that leaves other milters their own
    settings."""
    return f"smtpd_milters = {postfix_milter(address)}"


def postfix_milter(address: SocketAddress) -> str:
    """One element of smtpd_milters."""
    return f"{{ {_postfix_endpoint(address)}, default_action=tempfail, content_timeout=300s }}"


def sendmail_mc(address: SocketAddress) -> str:
    """The sendmail.mc line; DAEMON_OPTIONS without InputMailFilters= uses every filter so
    defined."""
    return (
        f"INPUT_MAIL_FILTER(`dmarc-milter', `S={_sendmail_endpoint(address)}, F=T,"
        " T=S:4m;R:4m;E:5m')dnl"
    )


def sendmail_lines(address: SocketAddress) -> tuple[str, ...]:
    """All that goes into sendmail.mc."""
    return (*SENDMAIL_STRICT, sendmail_mc(address))


def with_reasons(lines: Sequence[str], comment: str) -> tuple[str, ...]:
    """The lines, each below its reason as a comment; `comment` is # or dnl. This is the one form
    that all documents show."""
    shown: list[str] = []
    for line in lines:
        name = next((name for name in REASONS if re.search(rf"\b{name}\b", line)), "")
        shown += [f"{comment} {reason}" for reason in REASONS.get(name, ())]
        shown.append(line)
    return tuple(shown)


def postfix_lines(address: SocketAddress) -> tuple[str, ...]:
    """All that goes into main.cf, with reasons."""
    return with_reasons((postfix_main_cf(address), *POSTFIX_STRICT), "#")


def attach(address: SocketAddress) -> tuple[str, ...]:
    """Both, as `make run` prints them; () for a socket that was handed over, whose name
    we do not know."""
    if address.family == "fd":
        return ()
    return (
        (
            "attach Postfix by these lines in main.cf (before other milters in the list), then"
            " `postfix reload`:"
        ),
        *(f"  {line}" for line in postfix_lines(address)),
        (
            "or Sendmail by these lines in sendmail.mc, before MAILER(), then rebuild sendmail.cf"
            " and restart it:"
        ),
        *(f"  {line}" for line in with_reasons(sendmail_lines(address), "dnl")),
    )


def _postfix_endpoint(address: SocketAddress) -> str:
    """Postfix's spelling: inet:HOST:PORT, inet:[IPV6]:PORT, unix:PATH."""
    if address.family == "unix":
        return (  # a relative path is below Postfix's queue directory, chrooted or not
            f"unix:{address.path}"
        )
    host = f"[{reachable(address)}]" if address.family == "inet6" else reachable(address)
    return f"inet:{host}:{address.port}"


def _sendmail_endpoint(address: SocketAddress) -> str:
    """Sendmail's spelling: inet:PORT@HOST, inet6:PORT@IPV6, unix:PATH."""
    if address.family == "unix":
        return f"unix:{address.path}"
    return f"{address.family}:{address.port}@{reachable(address)}"


def reachable(address: SocketAddress) -> str:
    """The host an MTA on this machine connects to: a wildcard address means loopback."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
    return loopback.get(address.host, address.host)

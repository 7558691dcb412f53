"""The keys of the configuration that decide what becomes of a message: whom we trust, how policies
are found, what is done with mail that fails."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file."""


def doc(text: str) -> Meta:
    return Meta(description=text)


class Authentication(Section, frozen=True):
    """Who we are, whom we trust, and which methods run."""

    authserv_id: Annotated[str, doc("name in Authentication-Results; empty = host name")] = ""
    trusted_networks: Annotated[
        list[str], doc("clients that are not evaluated; forged fields are still removed")
    ] = msgspec.field(default_factory=lambda: ["127.0.0.0/8", "::1/128"])
    trusted_relays: Annotated[
        list[str],
        doc(
            "own front relays and backup MX: client address and HELO come from the topmost Received"
            " field naming a host outside"
        ),
    ] = msgspec.field(default_factory=list)
    trusted_daemons: Annotated[
        list[str],
        doc(
            "{daemon_name} of submission services: not evaluated where"
            " sendmail_daemons_authenticate says that they demand a login"
        ),
    ] = msgspec.field(default_factory=lambda: ["ORIGINATING", "MSA"])
    sendmail_daemons_authenticate: Annotated[
        Literal["auto", "yes", "no"],
        doc(
            "whether trusted_daemons take mail from authenticated clients alone; auto: those with"
            " M=a in sendmail_cf"
        ),
    ] = "auto"
    keep_results_from: Annotated[
        list[str], doc("networks whose Authentication-Results under our id stay (re-injection)")
    ] = msgspec.field(default_factory=list)
    remove_authserv_ids: Annotated[
        list[str], doc("further ids of ours (other MX hosts) whose fields are removed")
    ] = msgspec.field(default_factory=list)
    trusted_arc_sealers: Annotated[
        list[str], doc("domains whose ARC seal may override reject and quarantine")
    ] = msgspec.field(default_factory=list)
    sendmail_expands_aliases: Annotated[
        Literal["auto", "yes", "no"],
        doc(
            "whether Sendmail writes the target of a DNS alias into From after us; then mail from"
            " an alias of another organization's name gets no pass and is quarantined; auto: as"
            " sendmail_cf says, where the MTA says that it is Sendmail"
        ),
    ] = "auto"
    sendmail_cf: Annotated[
        str, doc("Sendmail's configuration, read by auto and by config check")
    ] = "/etc/mail/sendmail.cf"
    arc: Annotated[bool, doc("validate ARC chains (RFC 8617)")] = True
    iprev: Annotated[
        bool, doc("check that the client's reverse name resolves back (RFC 8601 3)")
    ] = False
    require_signed: Annotated[
        list[str],
        doc("header fields that a DKIM signature must cover to count, e.g. subject; From always"),
    ] = msgspec.field(default_factory=list)
    spf_permissive_counts: Annotated[
        bool, doc("whether an SPF pass by +all or an enormous range counts for DMARC")
    ] = True
    spf_upgrade_counts: Annotated[
        bool,
        doc("whether an SPF pass that a forwarder turned from fail into pass counts for DMARC"),
    ] = True


class Dmarc(Section, frozen=True):
    """How policies are found and read."""

    discovery: Annotated[
        Literal["treewalk", "psl"],
        doc("treewalk (RFC 9989) or psl (RFC 7489); t and np are honoured in both"),
    ] = "treewalk"
    psl_guard: Annotated[
        bool,
        doc(
            "treewalk: no ICANN public suffix is an organization; a record without psd there counts"
            " as psd=y"
        ),
    ] = True
    honor_pct: Annotated[
        bool, doc("sample as RFC 7489 6.6.4 where the record says pct and not t")
    ] = True
    on_temperror: Annotated[
        Literal["enforced", "accept", "tempfail"],
        doc(
            "the DNS gave no clear answer: 451 where a policy of quarantine or reject is known,"
            " never, or also where none answered"
        ),
    ] = "enforced"
    suffix_list: Annotated[
        str, doc("public suffix list file; empty = the one that comes with the package")
    ] = ""


class PolicyRule(Section, frozen=True):
    """One [[policy.rules]] entry. Every condition given must hold; a list holds when any of its
    values does."""

    action: Annotated[
        Literal["accept", "none", "quarantine", "reject", "tag"],
        doc("what to do with a message that matches"),
    ]
    comment: Annotated[
        str,
        Meta(max_length=200, description="why the rule is there; shown by why and sent in reports"),
    ] = ""
    author_domains: Annotated[list[str], doc("From domains, and by default their subdomains")] = (
        msgspec.field(default_factory=list)
    )
    include_subdomains: Annotated[bool, doc("whether author_domains matches subdomains too")] = True
    networks: Annotated[list[str], doc("client networks, e.g. 192.0.2.0/24")] = msgspec.field(
        default_factory=list
    )
    dkim: Annotated[list[str], doc("a passing DKIM signature by this domain or below")] = (
        msgspec.field(default_factory=list)
    )
    spf: Annotated[list[str], doc("an SPF pass for this domain or below")] = msgspec.field(
        default_factory=list
    )
    ptr: Annotated[
        list[str], doc("a client name that resolves forward and back, at or below this domain")
    ] = msgspec.field(default_factory=list)
    arc: Annotated[
        list[str], doc("a valid ARC chain whose newest seal is by this domain itself")
    ] = msgspec.field(default_factory=list)
    recipient_domains: Annotated[list[str], doc("all recipients are in these domains")] = (
        msgspec.field(default_factory=list)
    )
    expires: Annotated[
        str,
        Meta(
            pattern=r"^(\d{4}-\d{2}-\d{2})?$",
            description='last day the rule holds (UTC), "YYYY-MM-DD" in quotes; empty = forever',
        ),
    ] = ""
    reason: Annotated[
        Literal["local_policy", "mailing_list", "trusted_forwarder", "other"],
        doc("override reason in Authentication-Results and reports"),
    ] = "local_policy"
    tag: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9-]{0,40}$",
            description="action tag: the value of policy.tag in Authentication-Results",
        ),
    ] = ""


class PolicySection(Section, frozen=True):
    """What is done with mail that fails."""

    enforce: Annotated[
        bool,
        doc("false = monitor: nothing refused or quarantined, everything marked and recorded"),
    ] = True
    quarantine_action: Annotated[
        Literal["header", "hold", "reject"],
        doc("header: add X-DMARC-Quarantine; hold: the MTA's hold queue; reject: refuse it"),
    ] = "header"
    reject_action: Annotated[
        Literal["reject", "quarantine"],
        doc("what p=reject leads to; quarantine is the caution of RFC 9989 7.4"),
    ] = "reject"
    malformed_from: Annotated[
        Literal["strictest", "reject", "quarantine", "accept"],
        doc(
            "a From field that is missing, repeated, malformed or names several domains; strictest:"
            " what the strictest policy in it asks"
        ),
    ] = "strictest"
    testing_key_action: Annotated[
        Literal["quarantine", "reject"],
        doc(
            "the most that is done when the only aligned pass is by a key in testing (t=y); reject"
            " = no cap"
        ),
    ] = "quarantine"
    reject_text: Annotated[
        str,
        Meta(
            max_length=200,
            pattern=r"^[ -$&-~]*$",
            description="added to the refusal, e.g. where the sender can read more; no %",
        ),
    ] = ""
    rules: Annotated[list[PolicyRule], doc("ordered local rules")] = msgspec.field(
        default_factory=list
    )

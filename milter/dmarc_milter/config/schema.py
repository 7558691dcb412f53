"""Every option, its default, its bounds and its sentence: sample file, `config show`, reference
page and checks come from here."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file."""


def _doc(text: str) -> Meta:
    return Meta(description=text)


class MilterSection(Section, frozen=True):
    """The daemon: where the MTA finds it and what happens when it fails."""

    socket: Annotated[
        str,
        _doc('"inet:PORT@ADDRESS", "inet6:PORT@ADDRESS", "unix:/PATH", or "fd:3" (systemd socket)'),
    ] = "inet:8893@127.0.0.1"
    socket_mode: Annotated[
        str,
        Meta(
            pattern=r"^0[0-7]{3}$",
            description="mode of a unix socket, octal; given when it is opened: a reload leaves it",
        ),
    ] = "0660"
    socket_group: Annotated[
        str,
        _doc(
            "group of a unix socket: one that the MTA's account is in; empty = the daemon's own; a"
            " reload leaves it"
        ),
    ] = ""
    user: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_.-]{0,32}$",
            description=(
                "account to become where root starts the daemon; empty = stay (systemd has done"
                " it); a reload leaves it"
            ),
        ),
    ] = ""
    workers: Annotated[int, Meta(ge=0, le=256, description="processes; 0 = one per CPU")] = 0
    on_error: Annotated[
        Literal["tempfail", "accept"],
        _doc("what a message gets on which the milter itself fails: 451, or delivery unjudged"),
    ] = "tempfail"
    deadline: Annotated[
        float,
        Meta(
            ge=1,
            le=600,
            description=(
                "seconds after which a worker stuck in one evaluation is killed (the message gets"
                " 451)"
            ),
        ),
    ] = 40.0
    drain: Annotated[
        float,
        Meta(
            ge=0, le=600, description="seconds that sessions in flight get to finish when stopping"
        ),
    ] = 30.0
    idle_timeout: Annotated[
        float, Meta(ge=1, le=7200, description="seconds an MTA connection may be silent")
    ] = 300.0
    max_connections: Annotated[
        int,
        Meta(
            ge=1,
            le=100000,
            description=(
                "connections for each worker; beyond it the longest silent one outside a message is"
                " closed, else mail gets 451"
            ),
        ),
    ] = 1000


class Authentication(Section, frozen=True):
    """Who we are, whom we trust, and which methods run."""

    authserv_id: Annotated[str, _doc("name in Authentication-Results; empty = host name")] = ""
    trusted_networks: Annotated[
        list[str], _doc("clients that are not evaluated; forged fields are still removed")
    ] = msgspec.field(default_factory=lambda: ["127.0.0.0/8", "::1/128"])
    trusted_relays: Annotated[
        list[str],
        _doc(
            "own front relays and backup MX: client address and HELO come from the topmost Received"
            " field naming a host outside"
        ),
    ] = msgspec.field(default_factory=list)
    trusted_daemons: Annotated[
        list[str],
        _doc(
            "{daemon_name} of submission services: not evaluated where"
            " sendmail_daemons_authenticate says that they demand a login"
        ),
    ] = msgspec.field(default_factory=lambda: ["ORIGINATING", "MSA"])
    sendmail_daemons_authenticate: Annotated[
        Literal["auto", "yes", "no"],
        _doc(
            "whether trusted_daemons take mail from authenticated clients alone; auto: those with"
            " M=a in sendmail_cf"
        ),
    ] = "auto"
    keep_results_from: Annotated[
        list[str], _doc("networks whose Authentication-Results under our id stay (re-injection)")
    ] = msgspec.field(default_factory=list)
    remove_authserv_ids: Annotated[
        list[str], _doc("further ids of ours (other MX hosts) whose fields are removed")
    ] = msgspec.field(default_factory=list)
    trusted_arc_sealers: Annotated[
        list[str], _doc("domains whose ARC seal may override reject and quarantine")
    ] = msgspec.field(default_factory=list)
    sendmail_expands_aliases: Annotated[
        Literal["auto", "yes", "no"],
        _doc(
            "whether Sendmail writes the target of a DNS alias into From after us; then mail from"
            " an alias of another organization's name gets no pass and is quarantined; auto: as"
            " sendmail_cf says, where the MTA says that it is Sendmail"
        ),
    ] = "auto"
    sendmail_cf: Annotated[
        str, _doc("Sendmail's configuration, looked at by auto and by config check")
    ] = "/etc/mail/sendmail.cf"
    arc: Annotated[bool, _doc("validate ARC chains (RFC 8617)")] = True
    iprev: Annotated[
        bool, _doc("check that the client's reverse name resolves back (RFC 8601 3)")
    ] = False
    require_signed: Annotated[
        list[str],
        _doc("header fields that a DKIM signature must cover to count, e.g. subject; From always"),
    ] = msgspec.field(default_factory=list)
    spf_permissive_counts: Annotated[
        bool, _doc("whether an SPF pass by +all or an enormous range counts for DMARC")
    ] = True
    spf_upgrade_counts: Annotated[
        bool,
        _doc("whether an SPF pass that a forwarder turned from fail into pass counts for DMARC"),
    ] = True


class Dns(Section, frozen=True):
    """How the DNS is asked. Names are always absolute: no search list."""

    nameservers: Annotated[
        list[str], _doc('"ADDRESS", "ADDRESS:PORT" or "[ADDRESS]:PORT"; empty = system resolvers')
    ] = msgspec.field(default_factory=list)
    timeout: Annotated[float, Meta(gt=0, le=60, description="seconds for one lookup")] = 5.0
    budget: Annotated[
        float, Meta(gt=0, le=120, description="seconds for one message; SPF at most 20 of them")
    ] = 25.0
    cache_entries: Annotated[
        int, Meta(ge=0, le=10_000_000, description="answers kept for each worker")
    ] = 10_000
    cache_bytes: Annotated[
        int, Meta(ge=0, description="octets of answers kept for each worker")
    ] = 16 * 1024 * 1024
    stale_hours: Annotated[
        float,
        Meta(
            ge=0,
            le=168,
            description=(
                "a policy or DKIM key is used so long past its time while its DNS fails (RFC 8767);"
                " 0 = never"
            ),
        ),
    ] = 24.0


class Dmarc(Section, frozen=True):
    """How policies are found and read."""

    discovery: Annotated[
        Literal["treewalk", "psl"],
        _doc("treewalk (RFC 9989) or psl (RFC 7489); t and np are honoured in both"),
    ] = "treewalk"
    psl_guard: Annotated[
        bool,
        _doc(
            "treewalk: no ICANN public suffix is an organization; a record without psd there counts"
            " as psd=y"
        ),
    ] = True
    honor_pct: Annotated[
        bool, _doc("sample as RFC 7489 6.6.4 where the record says pct and not t")
    ] = True
    on_temperror: Annotated[
        Literal["enforced", "accept", "tempfail"],
        _doc(
            "the DNS did not let us judge: 451 where a policy of quarantine or reject is known,"
            " never, or also where none answered"
        ),
    ] = "enforced"
    suffix_list: Annotated[
        str, _doc("public suffix list file; empty = the one that comes with the package")
    ] = ""


class PolicyRule(Section, frozen=True):
    """One [[policy.rules]] entry. Every condition given must hold; a list holds when any of its
    values does."""

    action: Annotated[
        Literal["accept", "none", "quarantine", "reject", "tag"],
        _doc("what to do with a message that matches"),
    ]
    comment: Annotated[
        str,
        Meta(max_length=200, description="why the rule is there; shown by why and sent in reports"),
    ] = ""
    author_domains: Annotated[list[str], _doc("From domains, and by default their subdomains")] = (
        msgspec.field(default_factory=list)
    )
    include_subdomains: Annotated[bool, _doc("whether author_domains matches subdomains too")] = (
        True
    )
    networks: Annotated[list[str], _doc("client networks, e.g. 192.0.2.0/24")] = msgspec.field(
        default_factory=list
    )
    dkim: Annotated[list[str], _doc("a passing DKIM signature by this domain or below")] = (
        msgspec.field(default_factory=list)
    )
    spf: Annotated[list[str], _doc("an SPF pass for this domain or below")] = msgspec.field(
        default_factory=list
    )
    ptr: Annotated[
        list[str], _doc("a client name, proven forth and back, at or below this domain")
    ] = msgspec.field(default_factory=list)
    arc: Annotated[
        list[str], _doc("a valid ARC chain whose newest seal is by this domain itself")
    ] = msgspec.field(default_factory=list)
    recipient_domains: Annotated[list[str], _doc("all recipients are in these domains")] = (
        msgspec.field(default_factory=list)
    )
    expires: Annotated[
        str,
        Meta(
            pattern=r"^(\d{4}-\d{2}-\d{2})?$",
            description='last day the rule holds (UTC), "YYYY-MM-DD" in quotes; empty = for ever',
        ),
    ] = ""
    reason: Annotated[
        Literal["local_policy", "mailing_list", "trusted_forwarder", "other"],
        _doc("override reason in Authentication-Results and reports"),
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
        _doc("false = monitor: nothing refused or quarantined, everything marked and recorded"),
    ] = True
    quarantine_action: Annotated[
        Literal["header", "hold", "reject"],
        _doc("header: add X-DMARC-Quarantine; hold: the MTA's hold queue; reject: refuse it"),
    ] = "header"
    reject_action: Annotated[
        Literal["reject", "quarantine"],
        _doc("what p=reject leads to; quarantine is the caution of RFC 9989 7.4"),
    ] = "reject"
    malformed_from: Annotated[
        Literal["strictest", "reject", "quarantine", "accept"],
        _doc(
            "a From field that is missing, repeated, malformed or names several domains; strictest:"
            " what the strictest policy in it asks"
        ),
    ] = "strictest"
    testing_key_action: Annotated[
        Literal["quarantine", "reject"],
        _doc(
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
    rules: Annotated[list[PolicyRule], _doc("ordered local rules")] = msgspec.field(
        default_factory=list
    )


class StoreSection(Section, frozen=True):
    """Where evaluations wait until they have been reported."""

    url: Annotated[str, _doc('"sqlite:////PATH" or "postgresql://USER@HOST/DATABASE"')] = (
        "sqlite:////var/lib/dmarc-milter/reports.db"
    )
    spool: Annotated[
        str,
        _doc(
            "local spool file; empty = beside the SQLite store, or in /var/lib/dmarc-milter; `store"
            " drain` it before another is named"
        ),
    ] = ""
    spool_max_bytes: Annotated[
        int,
        Meta(
            ge=1_000_000,
            description=(
                "octets of the spool file; its journal (-wal, 80 MB and rarely more) comes on top"
            ),
        ),
    ] = 2_000_000_000
    decision_days: Annotated[
        int,
        Meta(
            ge=0,
            le=3650,
            description="days that decisions are kept for why, impact and the dashboard",
        ),
    ] = 14
    decision_max_rows: Annotated[int, Meta(ge=0, description="decisions kept at most")] = 2_000_000
    report_days: Annotated[
        int, Meta(ge=1, le=3650, description="days that sent reports are kept")
    ] = 30
    max_rows: Annotated[
        int,
        Meta(
            ge=1,
            description=(
                "distinct report rows for each policy domain and period; more are folded and"
                " counted"
            ),
        ),
    ] = 10_000
    password_file: Annotated[
        str,
        _doc(
            "file holding the PostgreSQL password; $CREDENTIALS_DIRECTORY/store-password is"
            " tried too"
        ),
    ] = ""


class Reporting(Section, frozen=True):
    """Reports to the domains whose mail was seen. Nothing is sent until org_name and email are
    set."""

    org_name: Annotated[str, Meta(max_length=200, description="who reports, in every report")] = ""
    email: Annotated[
        str,
        Meta(
            max_length=254,
            description="the reporting address: contact, and From of the report mail",
        ),
    ] = ""
    extra_contact_info: Annotated[
        str, Meta(max_length=254, description="e.g. a URL about these reports")
    ] = ""
    format: Annotated[Literal["rfc9990", "rfc7489"], _doc("form of aggregate reports")] = "rfc9990"
    rfc7489_destinations: Annotated[
        list[str], _doc("destination domains that get the RFC 7489 form all the same")
    ] = msgspec.field(default_factory=list)
    report_domains: Annotated[
        Literal["all", "known"], _doc("known = only domains that once passed here")
    ] = "all"
    honor_ri: Annotated[
        bool, _doc("shorter periods, from one hour, where the record's ri asks for them")
    ] = False
    smtp: Annotated[str, _doc('"HOST:PORT" that takes the report mail')] = "127.0.0.1:25"
    smtp_tls: Annotated[
        Literal["none", "opportunistic", "verify"],
        _doc("STARTTLS: never, if offered, or required with a valid certificate"),
    ] = "none"
    smtp_user: Annotated[str, _doc("login for the SMTP server; empty = no authentication")] = ""
    smtp_password_file: Annotated[
        str, _doc("file holding the password; $CREDENTIALS_DIRECTORY/smtp-password is tried too")
    ] = ""
    bounce_address: Annotated[
        str, _doc("envelope sender, made unique by +ID before the @; empty = email")
    ] = ""
    dkim_domain: Annotated[str, _doc("sign report mail with this d=; empty = not signed here")] = ""
    dkim_selector: Annotated[str, _doc("s= of that signature")] = ""
    dkim_key_file: Annotated[str, _doc("PEM private key of that signature")] = ""
    max_per_day: Annotated[int, Meta(ge=0, description="report mails a day in all")] = 5000
    max_per_destination: Annotated[
        int, Meta(ge=0, description="report mails a day to one destination domain")
    ] = 100
    max_new_destinations: Annotated[
        int, Meta(ge=0, description="destination domains a day that never got a report before")
    ] = 200
    max_size: Annotated[int, Meta(ge=10_000, description="octets of one compressed report")] = (
        10 * 1024 * 1024
    )
    retry_hours: Annotated[
        float, Meta(gt=0, le=720, description="hours after which an undelivered report expires")
    ] = 72.0
    suppress_days: Annotated[
        float,
        Meta(ge=0, le=3650, description="days that an address is left alone after hard bounces"),
    ] = 30.0
    spread_minutes: Annotated[
        float,
        Meta(ge=0, le=720, description="minutes over which the reports of a period are spread"),
    ] = 45.0
    failure_reports: Annotated[bool, _doc("send failure reports (ruf, RFC 9991)")] = False
    failure_per_destination: Annotated[
        int, Meta(ge=0, description="failure reports a day to one destination domain")
    ] = 10
    failure_per_day: Annotated[int, Meta(ge=0, description="failure reports a day in all")] = 200

    @property
    def is_on(self) -> bool:
        """Reports are sent once somebody has said in whose name."""
        return bool(self.org_name and self.email)


class Limits(Section, frozen=True):
    """What one message may cost. Beyond a limit the message is judged without what exceeded it,
    never better."""

    header_bytes: Annotated[
        int, Meta(ge=16384, le=8 << 20, description="octets of header fields that are judged")
    ] = 256 * 1024
    header_fields: Annotated[
        int, Meta(ge=10, le=100_000, description="header fields that are judged")
    ] = 1000
    removable_fields: Annotated[
        int,
        Meta(
            ge=1,
            le=5000,
            description=(
                "forged Authentication-Results and X-DMARC-Quarantine fields taken out of one"
                " message; with more of them it is refused (550 5.6.0), also in monitor mode and"
                " from trusted clients: Postfix's time for it grows with their square"
            ),
        ),
    ] = 200
    dkim_signatures: Annotated[
        int, Meta(ge=1, le=100, description="DKIM signatures examined, aligned ones first")
    ] = 10
    dkim_field_bytes: Annotated[
        int, Meta(ge=1024, le=1 << 20, description="octets of one DKIM or ARC field")
    ] = 16 * 1024
    dkim_key_bytes: Annotated[int, Meta(ge=512, le=65535, description="octets of a key record")] = (
        4096
    )
    dkim_names: Annotated[int, Meta(ge=8, le=1000, description="names in a signature's h=")] = 256
    rsa_min_bits: Annotated[int, Meta(ge=1024, le=4096, description="smallest RSA key")] = 1024
    rsa_max_bits: Annotated[int, Meta(ge=2048, le=16384, description="largest RSA key")] = 8192
    clock_skew: Annotated[
        int, Meta(ge=0, le=86400, description="seconds of tolerance for t= and x=")
    ] = 300
    arc_instances: Annotated[int, Meta(ge=1, le=50, description="ARC sets")] = 50
    arc_lookups: Annotated[int, Meta(ge=1, le=100, description="ARC key look-ups")] = 20
    spf_record_bytes: Annotated[
        int, Meta(ge=512, le=65535, description="octets of an SPF record")
    ] = 4096
    dns_queries: Annotated[int, Meta(ge=40, le=1000, description="DNS queries of one message")] = (
        160
    )


class LogSection(Section, frozen=True):
    """One line per message."""

    format: Annotated[Literal["text", "json"], _doc("key=value or one JSON object a line")] = "text"
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _doc("least important level that is written; debug: each message explained too"),
    ] = "info"


class Metrics(Section, frozen=True):
    """Prometheus, /healthz and /readyz."""

    listen: Annotated[str, _doc('"ADDRESS:PORT" or "unix:/PATH"; empty = off')] = ""


class Web(Section, frozen=True):
    """The read-only dashboard (`dmarc-milter web`)."""

    listen: Annotated[str, _doc('"ADDRESS:PORT"; anything but loopback needs token_file')] = (
        "127.0.0.1:8894"
    )
    token_file: Annotated[str, _doc("file holding a token that browsers must give")] = ""


class Config(Section, frozen=True):
    """The whole file."""

    milter: MilterSection = MilterSection()
    authentication: Authentication = msgspec.field(default_factory=Authentication)
    dns: Dns = msgspec.field(default_factory=Dns)
    dmarc: Dmarc = Dmarc()
    policy: PolicySection = msgspec.field(default_factory=PolicySection)
    store: StoreSection = StoreSection()
    reporting: Reporting = msgspec.field(default_factory=Reporting)
    limits: Limits = Limits()
    log: LogSection = LogSection()
    metrics: Metrics = Metrics()
    web: Web = Web()

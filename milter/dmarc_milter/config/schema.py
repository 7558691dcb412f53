"""Every option, its default, its bounds and its sentence: sample file, `config show`, reference
page and checks come from here."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dmarc_milter.config.schema_policy import Authentication, Dmarc, PolicySection, Section, doc
from dmarc_milter.config.schema_reporting import Reporting
from dmarc_milter.core import budget as default


class MilterSection(Section, frozen=True):
    """The daemon: where the MTA finds it and what happens when it fails."""

    socket: Annotated[
        str,
        doc('"inet:PORT@ADDRESS", "inet6:PORT@ADDRESS", "unix:/PATH", or "fd:3" (systemd socket)'),
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
        doc(
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
    library: Annotated[
        Literal["pymilter", "native"],
        doc(
            'what speaks with the MTA: "pymilter" (libmilter), or "native", our own code, which'
            " also serves where pymilter is not installed or cannot serve"
        ),
    ] = "pymilter"
    workers: Annotated[int, Meta(ge=0, le=256, description="processes; 0 = one per CPU")] = 0
    on_error: Annotated[
        Literal["tempfail", "accept"],
        doc("what a message gets on which the milter itself fails: 451, or delivery unjudged"),
    ] = "tempfail"
    deadline: Annotated[
        float,
        Meta(
            ge=1,
            le=600,
            description=(
                "seconds after which a worker stuck in one message is killed (it gets 451); more"
                " than 15 count as 15"
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


class Dns(Section, frozen=True):
    """How the DNS is asked. Names are always absolute: no search list."""

    nameservers: Annotated[
        list[str], doc('"ADDRESS", "ADDRESS:PORT" or "[ADDRESS]:PORT"; empty = system resolvers')
    ] = msgspec.field(default_factory=list)
    timeout: Annotated[float, Meta(gt=0, le=60, description="seconds for one lookup")] = (
        default.LOOK_UP_SECONDS
    )
    budget: Annotated[
        float,
        Meta(
            gt=0,
            le=120,
            description=f"seconds for one message; SPF at most {default.SPF_SECONDS:g} of them",
        ),
    ] = default.MESSAGE_SECONDS
    cache_entries: Annotated[
        int, Meta(ge=0, le=10_000_000, description="answers kept for each worker")
    ] = 10_000
    cache_bytes: Annotated[int, Meta(ge=0, description="bytes of answers kept for each worker")] = (
        16 * 1024 * 1024
    )
    stale_hours: Annotated[
        float,
        Meta(
            ge=0,
            le=168,
            description=(
                "hours that an expired policy or DKIM key is still used while its DNS fails (RFC"
                " 8767);"
                " 0 = never"
            ),
        ),
    ] = 24.0


class StoreSection(Section, frozen=True):
    """Where evaluations wait until they have been reported."""

    url: Annotated[str, doc('"sqlite:////PATH" or "postgresql://USER@HOST/DATABASE"')] = (
        "sqlite:////var/lib/dmarc-milter/reports.db"
    )
    read_url: Annotated[
        str,
        doc(
            "a replica of a PostgreSQL store, for the dashboard, why, impact and stats; empty ="
            " url. While it does not answer, url is asked"
        ),
    ] = ""
    spool: Annotated[
        str,
        doc(
            "local spool file; empty = beside the SQLite store, or in /var/lib/dmarc-milter; `store"
            " drain` it before another is named"
        ),
    ] = ""
    spool_max_bytes: Annotated[
        int,
        Meta(
            ge=1_000_000,
            description=(
                "bytes of the spool file; its journal (-wal, up to 260 MB, more on a slow disk)"
                " comes in addition"
            ),
        ),
    ] = 2_000_000_000
    keep_drained_hours: Annotated[
        float,
        Meta(
            ge=0,
            le=720,
            description=(
                "hours that the spool keeps what the store has, for a store that is restored from"
                " a backup; less where spool_max_bytes is near"
            ),
        ),
    ] = 24.0
    decision_days: Annotated[
        int,
        Meta(
            ge=0,
            le=3650,
            description="days that decisions are kept for why, impact and the dashboard",
        ),
    ] = 14
    decision_max_rows: Annotated[int, Meta(ge=0, description="decisions kept at most")] = 2_000_000
    decision_partitions: Annotated[
        bool,
        doc(
            "PostgreSQL: keep decisions in a partition for each day where the engine can; `store"
            " upgrade` makes them, and old days go at once instead of row by row"
        ),
    ] = True
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
        doc(
            "file holding the PostgreSQL password; $CREDENTIALS_DIRECTORY/store-password is"
            " tried too"
        ),
    ] = ""


class Limits(Section, frozen=True):
    """What one message may cost. Beyond a limit the message is judged without what exceeded it,
    never better."""

    header_bytes: Annotated[
        int, Meta(ge=16384, le=8 << 20, description="bytes of header fields that are judged")
    ] = default.HEADER_BYTES
    header_fields: Annotated[
        int, Meta(ge=10, le=100_000, description="header fields that are judged")
    ] = default.HEADER_FIELDS
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
    ] = default.REMOVABLE_FIELDS
    dkim_signatures: Annotated[
        int, Meta(ge=1, le=100, description="DKIM signatures examined, aligned ones first")
    ] = default.DKIM_SIGNATURES
    dkim_field_bytes: Annotated[
        int, Meta(ge=1024, le=1 << 20, description="bytes of one DKIM or ARC field")
    ] = default.DKIM_FIELD
    dkim_key_bytes: Annotated[int, Meta(ge=512, le=65535, description="bytes of a key record")] = (
        default.DKIM_KEY_RECORD
    )
    dkim_names: Annotated[int, Meta(ge=8, le=1000, description="names in a signature's h=")] = (
        default.DKIM_NAMES
    )
    rsa_min_bits: Annotated[int, Meta(ge=1024, le=4096, description="smallest RSA key")] = (
        default.RSA_MIN_BITS
    )
    rsa_max_bits: Annotated[int, Meta(ge=2048, le=16384, description="largest RSA key")] = (
        default.RSA_MAX_BITS
    )
    clock_skew: Annotated[
        int, Meta(ge=0, le=86400, description="seconds of tolerance for t= and x=")
    ] = default.CLOCK_SKEW
    arc_instances: Annotated[int, Meta(ge=1, le=50, description="ARC sets")] = default.ARC_INSTANCES
    arc_lookups: Annotated[int, Meta(ge=1, le=100, description="ARC key look-ups")] = (
        default.ARC_LOOKUPS
    )
    spf_record_bytes: Annotated[
        int, Meta(ge=512, le=65535, description="bytes of an SPF record")
    ] = default.SPF_RECORD
    dns_queries: Annotated[int, Meta(ge=40, le=1000, description="DNS queries of one message")] = (
        default.MESSAGE_QUERIES
    )


class LogSection(Section, frozen=True):
    """One line per message."""

    format: Annotated[Literal["text", "json"], doc("key=value or one JSON object a line")] = "text"
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        doc("least important level that is written; debug: each message explained too"),
    ] = "info"


class Metrics(Section, frozen=True):
    """Prometheus, /healthz and /readyz."""

    listen: Annotated[str, doc('"ADDRESS:PORT" or "unix:/PATH"; empty = off')] = ""


class Web(Section, frozen=True):
    """The read-only dashboard (`dmarc-milter web`)."""

    listen: Annotated[str, doc('"ADDRESS:PORT"; anything but loopback needs token_file')] = (
        "127.0.0.1:8894"
    )
    token_file: Annotated[str, doc("file holding a token that browsers must give")] = ""


class Summary(Section, frozen=True):
    """A mail about a day or a week (`dmarc-milter summary --send`, run by
    dmarc-milter-summary.timer)."""

    to: Annotated[str, doc("the postmaster's address; empty = none is sent")] = ""
    every: Annotated[Literal["day", "week"], doc("how often; a week's comes on Monday")] = "week"


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
    summary: Summary = Summary()

"""Whether the reports' own mail would pass elsewhere: SPF, DKIM and DMARC of the sender, as `config
check` looks at them."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from msgspec.structs import replace

from dmarc_milter.checks import folders, secrets, service
from dmarc_milter.config import Config, ConfigError
from dmarc_milter.config.checks import name
from dmarc_milter.config.commands import set_command
from dmarc_milter.config.schema_reporting import Reporting
from dmarc_milter.config.secrets import identity_keys, signing_key, smtp_password
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.core.dkim import DkimOptions, DkimStatus
from dmarc_milter.core.dkim.keyring import KeyRing
from dmarc_milter.core.dmarc.discovery import PublicSuffixes
from dmarc_milter.core.dmarc.result import DmarcStatus
from dmarc_milter.core.lint import Survey, survey
from dmarc_milter.core.lint.domain import PROBE
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.mail.path import ReversePath
from dmarc_milter.core.report.destination import Permission, takes_mail
from dmarc_milter.core.report.failing_readers import DATED
from dmarc_milter.core.report.mail import verp
from dmarc_milter.core.resolver import LookupFailed, NoAnswer, Resolver
from dmarc_milter.core.spf import record as spf_record
from dmarc_milter.core.spf.check import SpfStatus, check
from dmarc_milter.core.spf.options import SpfOptions

WHAT = "reports"
LONGEST = 64 - len(verp("@", "0" * 32, "0" * 8).partition("@")[0])
"""Bytes of the bounce address's local part that leave room for what makes it each report's own
(RFC 5321 4.5.3.1.1)."""


NO_MX = ("the host does not exist", "the host has neither MX nor address")
"""What `takes_mail` says where an MX record can simply be added."""
FIRST_SPF = "v=spf1 a mx ~all"
"""`~all`: other hosts may send for the domain too, and must not be refused for it."""
ALL = {"pass": "~all", "neutral": "?all", "softfail": "~all", "fail": "-all"}
"""Mildest first, by what it gives."""
STRING = 255
"""Bytes of one string of a TXT record."""


def report_sender(
    config: Config, resolver: Resolver, suffixes: PublicSuffixes | None
) -> Iterator[Finding]:
    """Everything about the sender of reports, or that none are sent."""
    options = config.reporting
    if not options.is_on:
        half = bool(options.org_name) != bool(options.email)
        text = (
            "[reporting] org_name and email are both needed"
            if half
            else "no reports are sent: [reporting] org_name and email are not set"
        )
        yield Finding(
            "warning" if half else "note", WHAT, text, _other_half(options) if half else ""
        )
        return
    unusable = [*_unusable_secrets(config)]
    yield from unusable
    if unusable:
        return
    key = signing_key(config)
    sender = name(options.email.rpartition("@")[2])
    found = survey(sender, resolver, suffixes=suffixes)
    yield from _published(found)
    yield _form(options)
    if options.copy_to.startswith("/") and folders.is_missing(Path(options.copy_to)):
        account, group = service.names(config)
        folder = f"install -d -o {account} -g {group} -m 750 {shlex.quote(options.copy_to)}"
        yield Finding("error", WHAT, f"copy_to: there is no folder {options.copy_to}", folder)
    yield from _envelope(config, sender, found, resolver)
    yield from _signature(config, sender, key.pem if key else b"", resolver)


def _other_half(options: Reporting) -> str:
    """What is missing of the two, from what is there or the host's name."""
    if not options.org_name:
        return set_command("reporting.org_name", options.email.rpartition("@")[2])
    organization = service.own_name().partition(".")[2]
    return set_command("reporting.email", f"dmarc@{organization}")


def _unusable_secrets(config: Config) -> Iterator[Finding]:
    """Password and keys, each by itself: a fault of one says nothing about another."""
    options = config.reporting
    try:
        smtp_password(config)
    except ConfigError as error:
        yield Finding("error", WHAT, str(error), _password_remedy(config, error))
    try:
        signing_key(config)
    except ConfigError as error:
        yield Finding("error", WHAT, str(error), _key_remedy(config, error))
    for one in options.identities:
        try:
            identity_keys(replace(config, reporting=replace(options, identities=[one])))
        except ConfigError as error:
            make = partial(service.new_key, config=config)
            is_named = one.dkim_selector and one.dkim_key_file
            remedy = secrets.remedy(one.dkim_key_file, error, make) if is_named else ""
            yield Finding("error", WHAT, str(error), remedy)


def _password_remedy(config: Config, error: ConfigError) -> str:
    path = config.reporting.smtp_password_file
    if not path:  # systemd's credential
        return ""
    if isinstance(error.__context__, UnicodeDecodeError):
        return f"{service.editor()} {shlex.quote(path)}"
    return secrets.remedy(path, error, partial(service.new_file, config=config))


def _key_remedy(config: Config, error: ConfigError) -> str:
    options = config.reporting
    if not options.dkim_selector:
        return set_command("reporting.dkim_selector", "dmarc")
    if not options.dkim_key_file:
        return set_command("reporting.dkim_domain", "")
    return secrets.remedy(options.dkim_key_file, error, partial(service.new_key, config=config))


def _form(options: Reporting) -> Finding:
    """In which form reports go, and where that is explained."""
    others = len(options.rfc7489_destinations) + len(options.rfc9990_destinations)
    usual = {
        "auto": "RFC 9990's form, RFC 7489's where the reader is known to fail on it (list of"
        f" {DATED})",
        "rfc9990": "RFC 9990's form",
        "rfc7489": "RFC 7489's form",
    }[options.format]
    exceptions = f", {others} named destinations as configured" if others else ""
    return Finding(
        "ok", WHAT, f"reports go in {usual}{exceptions}; readers: docs/reference/reports.md"
    )


def _published(surveyed: Survey) -> Iterator[Finding]:
    # A record that is none, or stands elsewhere, is to be mended: a second would not help.
    attempts = [one.text for one in surveyed.findings if one.where == "record"][1:]
    if surveyed.published is None:
        yield Finding(
            "warning",
            WHAT,
            f"{surveyed.domain}: {'; '.join(attempts) or surveyed.sentence}",
            _record(f"_dmarc.{surveyed.domain}.", "v=DMARC1; p=none")
            if surveyed.outcome.status is DmarcStatus.NONE and not attempts
            else f"dmarc-milter domain {surveyed.domain}",
        )
    else:
        yield Finding(
            "ok",
            WHAT,
            f"{surveyed.domain} has a DMARC policy"
            f" ({surveyed.outcome.policy_tag}={surveyed.outcome.policy})",
        )
    for finding in surveyed.findings:
        if finding.level == "error" and surveyed.published is not None:
            text = f"{surveyed.domain}: {finding.where}: {finding.text}"
            yield Finding("warning", WHAT, text, f"dmarc-milter domain {surveyed.domain}")


def _envelope(
    config: Config, sender: Domain, surveyed: Survey, resolver: Resolver
) -> Iterator[Finding]:
    """SPF is checked for the bounce address's domain; bounces must find their way back."""
    bounces = config.reporting.bounce_address or config.reporting.email
    host = name(bounces.rpartition("@")[2])
    spf = surveyed.spf if host == sender else survey(host, resolver).spf
    if spf.status is SpfStatus.NONE:
        yield Finding(
            "warning",
            WHAT,
            f"{host} has no SPF record: reports must be DKIM-signed to pass anywhere (the host that"
            " sends to the world must be in it)",
            f"dmarc-milter domain {host}"
            if _texts_with(b"spf", str(host), resolver)  # an attempt, which is to be mended
            else _record(f"{host}.", FIRST_SPF),
        )
    elif spf.status in (SpfStatus.PERMERROR, SpfStatus.TEMPERROR):
        merged = _merged_spf(host, resolver)
        yield Finding(
            "error",
            WHAT,
            f"SPF of {host}: {spf.reason}"
            + ("; one in place of them all lets the same hosts send" if merged else ""),
            _record(f"{host}.", merged) if merged else f"dmarc-milter domain {host}",
        )
    else:
        yield Finding(
            "ok", WHAT, f"{host} has an SPF record; it must list the host that sends to the world"
        )
    if len(bounces.rpartition("@")[0]) > LONGEST:
        yield Finding(
            "warning",
            WHAT,
            f"{bounces}: with each report's tag its local part has more than 64 bytes; at most"
            f" {LONGEST} are safe",
            set_command("reporting.bounce_address", f"dmarc@{host}"),
        )
    mail = takes_mail(host, resolver)
    if mail.permission is not Permission.GRANTED:
        yield Finding(
            "error",
            WHAT,
            f"{bounces} cannot get bounces: {mail.reason}",
            f"publish {host}. MX 10 {service.own_name()}."
            if mail.reason in NO_MX
            else f"dmarc-milter domain {host}",
        )


def _merged_spf(host: Domain, resolver: Resolver) -> str:
    """Several records as the one that may be there (RFC 7208 3.2): whoever sends by any of them may
    still send, and the mildest `all` holds. "" where there are not several, or they cannot be put
    together: what one refuses would be refused to those that another lets send."""
    try:
        texts = spf_record.select(resolver.txt(str(host)))
    except (NoAnswer, LookupFailed):
        return ""
    found = [spf_record.parse(text, SpfOptions().max_term) for text in texts]
    records = [one for one in found if isinstance(one, spf_record.SpfRecord) and not one.redirect]
    if len(records) < max(2, len(found)):
        return ""
    terms = [each for one in records for each in one.directives]
    rest = [each for each in terms if each.mechanism != "all"]
    ends = {each.result for each in terms if each.mechanism == "all"}
    # No record of ours lets everybody send: `~all` stands for `+all`.
    end = next((ALL[result] for result in ALL if result in ends), "~all")
    whole = " ".join(["v=spf1", *dict.fromkeys(each.text for each in rest), end])
    is_plain = whole.isprintable() and not re.search(r'["\\]', whole)
    is_sum = is_plain and all(each.result == "pass" for each in rest)
    has_exp = any(b"exp=" in text.lower() for text in texts)
    return whole if is_sum and not has_exp and _is_usable(whole, host, resolver) else ""


def _is_usable(record: str, host: Domain, resolver: Resolver) -> bool:
    """Whether it would be no error, such as by more than ten look-ups (RFC 7208 4.6.4). A pass, for
    an address that sends no mail, comes before the rest was looked at."""
    envelope = Envelope(PROBE, host.name, ReversePath("postmaster", host))
    instead: Any = _Instead(resolver, host.name, record.encode())
    no_match = (SpfStatus.FAIL, SpfStatus.SOFTFAIL, SpfStatus.NEUTRAL)
    return check(envelope, instead).status in no_match


class _Instead:
    """A Resolver to which one name has this TXT record and no other."""

    def __init__(self, resolver: Resolver, name: str, text: bytes) -> None:
        self._resolver, self._name, self._text = resolver, name, text

    def txt(self, name: str) -> tuple[bytes, ...]:
        return (self._text,) if name == self._name else self._resolver.txt(name)

    def share(self, *, queries: int, seconds: float) -> _Instead:
        share = self._resolver.share(queries=queries, seconds=seconds)
        return _Instead(share, self._name, self._text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._resolver, name)


def _signature(config: Config, sender: Domain, pem: bytes, resolver: Resolver) -> Iterator[Finding]:
    options = config.reporting
    if not pem:
        yield Finding(
            "note",
            WHAT,
            f"report mail is not signed here (dkim_domain is empty); {options.smtp} should sign it"
            f" as {sender}",
        )
        return
    signer = name(options.dkim_domain)
    if not (sender.is_at_or_below(signer) or signer.is_at_or_below(sender)):
        yield Finding(
            "error",
            WHAT,
            f"dkim_domain {signer} does not align with {options.email}: the signature proves"
            " nothing to others",
            set_command("reporting.dkim_domain", str(sender)),
        )
    yield _published_key(f"{options.dkim_selector}._domainkey.{signer}", pem, resolver)


def _published_key(where: str, pem: bytes, resolver: Resolver) -> Finding:
    """Whether the DNS publishes the public half of the private key."""
    answer = KeyRing(resolver, DkimOptions()).find(where)
    if not answer.keys:
        level: Literal["warning", "error"] = (
            "warning" if answer.status is DkimStatus.TEMPERROR else "error"
        )
        if level == "warning":
            return Finding(level, WHAT, f"{where}: {answer.reason}", f"dmarc-milter domain {where}")
        remedy = _other_selector(where, resolver) or _record_of(where, pem)
        return Finding(level, WHAT, f"{where}: {answer.reason}", remedy)
    private = load_pem_private_key(pem, None)
    ours = private.public_key().public_numbers() if isinstance(private, RSAPrivateKey) else None
    if ours is not None and any(
        getattr(key.public, "public_numbers", lambda: None)() == ours for key in answer.keys
    ):
        return Finding("ok", WHAT, f"{where} publishes the key of dkim_key_file")
    return Finding(
        "error",
        WHAT,
        f"{where} publishes another key than dkim_key_file holds: it may be another program's,"
        " which its own selector keeps working",
        _other_selector(where, resolver) or _record_of(where, pem),
    )


def _other_selector(where: str, resolver: Resolver) -> str:
    """The command that names a selector which nobody has: a key that is published may be used, or
    was revoked. "" where there is none at `where`, or no other name is free."""
    if not _texts_with(b"p=", where, resolver):
        return ""
    selector, _, rest = where.partition("._domainkey.")
    for other in ("dmarc", "dmarc-reports", f"{selector}-reports"):
        place = f"{other}._domainkey.{rest}"
        if place != where and not _texts_with(b"p=", place, resolver):
            return set_command("reporting.dkim_selector", other)
    return ""


def _texts_with(word: bytes, where: str, resolver: Resolver) -> list[bytes]:
    """TXT records that hold it, in any case."""
    try:
        return [text for text in resolver.txt(where) if word in text.lower()]
    except (NoAnswer, LookupFailed):
        return []


def _record_of(where: str, pem: bytes) -> str:
    """What the DNS should say, for an administrator to copy (RFC 6376 3.6.1)."""
    public = load_pem_private_key(pem, None).public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _record(f"{where}.", f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}")


def _record(owner: str, text: str) -> str:
    """A TXT record as a zone file has it: strings of at most 255 bytes (RFC 1035 3.3), which
    readers put together."""
    pieces = [text[start : start + STRING] for start in range(0, len(text), STRING)]
    strings = " ".join(f'"{piece}"' for piece in pieces)
    return f"publish {owner} TXT {strings}"

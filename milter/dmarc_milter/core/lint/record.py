"""A DMARC record tag by tag: what each one means, and what is wrong or without effect (RFC 9989
4.7; RFC 7489 6.3 for the old ones)."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import NamedTuple

from dmarc_milter.core.check_finding import Finding
from dmarc_milter.core.dmarc.record import (
    MALFORMED_ADDRESS,
    MALFORMED_URI,
    OTHER_SCHEME,
    AlignmentMode,
    Policy,
    Record,
    ReportUri,
    report_uri,
)

DONE = {Policy.NONE: "delivered", Policy.QUARANTINE: "quarantined", Policy.REJECT: "refused"}
LOWERED = {
    Policy.NONE: Policy.NONE,
    Policy.QUARANTINE: Policy.NONE,
    Policy.REJECT: Policy.QUARANTINE,
}
OPTIONS = {
    "0": "when no mechanism gives an aligned pass",
    "1": "when any mechanism gives none",
    "d": "when a DKIM signature fails",
    "s": "when SPF fails",
}
SPELLED = ("p", "sp", "np", "t", "psd", "adkim", "aspf", "rua", "ruf", "fo", "pct")
"""The order in which tags are shown."""
MILD = ("unknown tag", "scheme not supported")
"""Errors of a record that leave it working as meant: a tag of the future, an https address."""

ADDRESSES = ("rua", "ruf")
WHITE = " \t"
SHOWN = 100
"""Characters of a wrong value that a finding repeats."""
ALLOWED = {
    **dict.fromkeys(("p", "sp", "np"), "none, quarantine, reject"),
    **dict.fromkeys(("adkim", "aspf"), "r, s"),
    "t": "y, n",
    "psd": "y, n, u",
    "pct": "0 to 100",
    "fo": "0, 1, d, s, joined by colons",
    "ri": "seconds",
}
WHOLE = ("unknown tag", "tag without value")
"""Errors of the record and of no known tag."""


class TagMeaning(NamedTuple):
    """`value` is "" where the tag is absent or not valid: the meaning is then that of the
    default."""

    name: str
    value: str
    meaning: str


def tags(record: Record) -> tuple[TagMeaning, ...]:
    """Every tag that RFC 9989 knows, and pct, with its meaning here."""
    return tuple(_tag(name, record) for name in SPELLED if name != "pct" or record.pct is not None)


def _tag(name: str, record: Record) -> TagMeaning:
    match name:
        case "p":
            return TagMeaning(name, record.p or "", _policy("the domain itself", record.p))
        case "sp":
            return TagMeaning(
                name, record.sp or "", _policy("its subdomains", record.sp or record.p)
            )
        case "np":
            return TagMeaning(
                name,
                record.np or "",
                _policy("subdomains that do not exist", record.np or record.sp or record.p),
            )
        case "adkim" | "aspf":
            return _alignment(
                name,
                record.adkim if name == "adkim" else record.aspf,
                "d=" if name == "adkim" else "MAIL FROM",
            )
        case "rua" | "ruf":
            uris = record.rua if name == "rua" else record.ruf
            kind = "aggregate reports" if name == "rua" else "failure reports"
            addresses = ", ".join(uri.address for uri in uris)
            return TagMeaning(
                name, addresses, f"{kind} go to {addresses}" if uris else f"no {kind} are asked for"
            )
        case _:
            return _switch(name, record)


def _policy(whose: str, policy: Policy | None) -> str:
    return (
        f"failing mail that names {whose} is to be {DONE[policy]}"
        if policy
        else f"no valid policy for {whose}"
    )


def _alignment(name: str, mode: AlignmentMode, what: str) -> TagMeaning:
    strict = mode is AlignmentMode.STRICT
    return TagMeaning(
        name,
        mode if strict else "",
        (
            f"{what} must be the very From domain"
            if strict
            else f"{what} of the same organization counts"
        ),
    )


def _switch(name: str, record: Record) -> TagMeaning:
    """t, psd, fo, pct."""
    if name == "t":
        meaning = (
            "in test: one level less is applied" if record.testing else "in force, not in test"
        )
        return TagMeaning(name, "" if record.testing is None else "ny"[record.testing], meaning)
    if name == "psd":
        meanings = {
            "y": "a public suffix: names below it are organizations",
            "n": "an organization, whatever stands above it",
        }
        return TagMeaning(
            name,
            record.psd if record.psd != "u" else "",
            meanings.get(record.psd, "the walk decides which name is the organization"),
        )
    if name == "fo":
        said = "; or ".join(OPTIONS[option] for option in record.fo.split(":"))
        return TagMeaning(
            name, record.fo if record.fo != "0" else "", f"a failure report is due {said}"
        )
    return TagMeaning(
        name,
        str(record.pct),
        f"older receivers apply the policy to {record.pct} of 100 failing messages",
    )


def sentence(record: Record, policy_domain: str) -> str:
    """The policy as a person would say it."""
    if record.p is None or record.invalid_policy:
        effect = "only reports are sent" if record.rua_valid else "DMARC does not apply"
        return f"{policy_domain} publishes no valid policy, so {effect}."
    lowered = record.testing or (record.testing is None and record.pct == 0)
    policies = [
        LOWERED[policy] if lowered else policy
        for policy in (record.p, record.sp or record.p, record.np or record.sp or record.p)
    ]
    parts = [f"{policy_domain} asks that mail failing DMARC be {DONE[policies[0]]}"]
    if policies[1] is not policies[0]:
        parts.append(f"from its subdomains {DONE[policies[1]]}")
    if policies[2] is not policies[1]:
        parts.append(f"from names below it that do not exist {DONE[policies[2]]}")
    if lowered:
        parts.append(f"one level less than {record.p} because it is in test")
    to = ", ".join(uri.address for uri in record.rua)
    wish = f"aggregate reports at {to}" if to else "no aggregate reports"
    return f"{'; '.join(parts)}. It wants {wish}."


def findings(record: Record) -> Iterator[Finding]:
    """What is wrong with the record itself, without looking anything up."""
    for error in record.errors:
        name, _, problem = error.rpartition(": ")
        if name in ADDRESSES and problem in (MALFORMED_URI, MALFORMED_ADDRESS, OTHER_SCHEME):
            continue
        mild = any(mild in error for mild in MILD)
        where = "record" if problem in WHOLE else name or "record"
        yield Finding("warning" if mild else "error", where, _problem(name, problem, record))
    for name in ADDRESSES:
        yield from _addresses(name, record)
    yield from _policies(record)
    yield from _sampling(record)
    yield from _reports(record)


def _written(name: str, record: Record) -> list[str]:
    """The values that the record's text gives this tag, as they stand there."""
    items = (item.partition("=") for item in record.text.split(";"))
    return [value.strip(WHITE) for tag, _, value in items if tag.strip(WHITE).lower() == name]


def _problem(name: str, problem: str, record: Record) -> str:
    """In words, with the value that is wrong and what was probably meant."""
    if problem == "unknown tag":
        near = [known for known in SPELLED if sorted(known) == sorted(name)]
        near = near or difflib.get_close_matches(name, SPELLED, 1, 0.6)
        meant = f"; did you mean {near[0]}?" if near else ""
        return f"unknown tag{name and f' {name}'}: ignored{meant}"
    if problem in WHOLE or not name:
        return f"{problem}{name and f' {name}'}: ignored" + (
            "; is a semicolon or an equals sign missing?" if problem == "tag without value" else ""
        )
    said = _said(name, problem, record)
    if name in ("p", "sp", "np"):
        effect = "the whole policy counts as none" if record.rua_valid else "the record is ignored"
        return f"{said}: {effect} (RFC 9989 4.10.1)"
    effect = "that address gets nothing" if name in ADDRESSES else "its default applies"
    return f"{said}: {effect}"


def _said(name: str, problem: str, record: Record) -> str:
    """Such as `p=rejct is not valid, did you mean p=reject`."""
    values = _written(name, record)
    if problem == "repeated":
        return f"{name} is repeated ({len(values)} times)"
    if problem != "not valid" or not values:
        return f"{name} is {problem}"
    value, allowed = values[0][:SHOWN], ALLOWED.get(name, "")
    near = difflib.get_close_matches(value.lower(), allowed.split(", "), 1, 0.6)
    meant = f", did you mean {name}={near[0]}" if near else f", allowed: {allowed}" * bool(allowed)
    return f"{name}={value} is not valid{meant}"


def _addresses(name: str, record: Record) -> Iterator[Finding]:
    """Report addresses that nobody can write to, each with what it lacks."""
    for item in (item.strip(WHITE) for text in _written(name, record) for item in text.split(",")):
        problem = report_uri(item)
        if not isinstance(problem, str):
            continue
        shown = f"{name}={item[:SHOWN]}"
        if problem == OTHER_SCHEME:
            yield Finding("warning", name, f"{shown}: reports are sent by mail only (mailto:)")
        elif not item:
            text = f"an address of {name} is empty: a comma too many, or nothing behind ="
            yield Finding("error", name, text)
        elif isinstance(report_uri(f"mailto:{item}"), ReportUri):
            meant = f"mailto: is missing, write {name}=mailto:{item[:SHOWN]}"
            yield Finding("error", name, f"{shown}: {meant}; that address gets nothing")
        else:
            words = "no mail address" if problem == MALFORMED_ADDRESS else "no valid URI"
            yield Finding("error", name, f"{shown} is {words}: that address gets nothing")


def _policies(record: Record) -> Iterator[Finding]:
    if record.p is None:
        return
    if record.p is Policy.NONE:
        text = "p=none asks for nothing but reports: forged mail of this domain is delivered"
        yield Finding("warning", "p", text)
    for name, policy in (("sp", record.sp), ("np", record.np)):
        if policy is not None and policy.strictness < record.p.strictness:
            yield Finding(
                "warning",
                name,
                f"{name}={policy} is weaker than p={record.p}: forgers will use names below the"
                " domain",
            )
    if record.np is None and (record.sp or record.p) is Policy.NONE:
        yield Finding(
            "note", "np", "np=reject would stop mail from names that do not exist, at no risk"
        )


def _sampling(record: Record) -> Iterator[Finding]:
    """pct and t: RFC 9989 replaced the one by the other, and receivers of both kinds are about."""
    lowered = record.p is not None and record.p is not Policy.NONE
    if record.pct is not None and record.testing is not None:
        yield Finding(
            "note",
            "pct",
            "receivers that know t ignore pct; the others ignore t: make both say the same",
        )
    elif record.pct == 0:
        yield Finding("warning", "pct", "pct=0 says what t=y says now: publish t=y as well")
    elif record.pct is not None and record.pct < 100:
        yield Finding(
            "warning",
            "pct",
            f"receivers of RFC 9989 ignore pct={record.pct} and apply the policy to all mail",
        )
    elif record.pct == 100:
        yield Finding(
            "note", "pct", "pct=100 is the default and was removed by RFC 9989: it can go"
        )
    if record.testing and lowered:
        yield Finding(
            "note",
            "t",
            f"t=y: receivers apply one level less than p={record.p}; remove it to enforce",
        )
    elif record.testing:
        yield Finding("note", "t", "t=y changes nothing below p=quarantine")


def _reports(record: Record) -> Iterator[Finding]:
    if not record.rua and not any(error.startswith("rua") for error in record.errors):
        yield Finding(
            "warning", "rua", "without rua nobody tells the domain what is sent in its name"
        )
    if any(uri.max_size is not None for uri in (*record.rua, *record.ruf)):
        yield Finding(
            "note", "rua", "the size after ! was removed by RFC 9989: few receivers look at it"
        )
    if record.fo != "0" and not record.ruf:
        yield Finding("note", "fo", "fo without ruf has no effect")
    if record.ruf and record.psd == "y":
        yield Finding("warning", "ruf", "with psd=y no failure reports are sent (RFC 9991)")
    for name in ("ri", "rf"):
        if any(
            item.partition("=")[0].strip(" \t").lower() == name for item in record.text.split(";")
        ):
            yield Finding("note", name, f"{name} was removed by RFC 9989: it can go")

"""An aggregate report as a value, and the two documents that it can become: RFC 9990's and RFC 7489
Appendix C's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from dmarc_milter import __version__
from dmarc_milter.core.report.rows import INVALID, Period, Row
from dmarc_milter.core.stored import DkimFact, SpfFact, StoredPolicy, StoredReason

Format = Literal["rfc9990", "rfc7489"]
GENERATOR = f"dmarc-milter {__version__}"
MAX_ERRORS = 5

Node = tuple[str, "str | list[Node]"]
"""An element: its name, and its text or its children in order."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports. `domain` is the generator's domain of file name and subject."""

    org_name: str
    email: str
    domain: str
    extra_contact_info: str = ""


@dataclass(frozen=True, slots=True)
class Feedback:
    """One report: one policy domain, one policy configuration, one period (RFC 9990 3.1)."""

    reporter: Reporter
    report_id: str
    """32 hexadecimal digits: the same in XML, subject, file name and Message-ID, and for every
    try."""
    period: Period
    published: StoredPolicy
    rows: tuple[tuple[Row, int], ...]
    """Distinct rows, each with its number of messages."""
    folded: int = 0
    """Messages beyond the cap on distinct rows: counted, and said in the report's error element."""

    @property
    def messages(self) -> int:
        """All messages that the report speaks of, folded ones included."""
        return sum(count for _, count in self.rows) + self.folded


def document(feedback: Feedback, form: Format) -> Node:
    """The report's element tree in the schema's order."""
    nodes: list[Node] = [("version", "1.0"), ("report_metadata", _metadata(feedback, form))]
    nodes.append(("policy_published", _published(feedback.published, form)))
    nodes.extend(("record", record) for record in _records(feedback, form))
    return "feedback", nodes


def _records(feedback: Feedback, form: Format) -> Iterator[list[Node]]:
    """One record for each tuple of address, results and identifiers (RFC 9990 Appendix A): rows
    that this form shows alike are one."""
    alike: dict[bytes, tuple[Row, int]] = {}
    for row, count in feedback.rows:
        shown = msgspec.msgpack.encode(_record(row, 0, form))
        first, before = alike.get(shown, (row, 0))
        alike[shown] = first, before + count
    return (_record(row, count, form) for row, count in alike.values())


def _metadata(feedback: Feedback, form: Format) -> list[Node]:
    reporter, period = feedback.reporter, feedback.period
    nodes: list[Node] = [("org_name", reporter.org_name), ("email", reporter.email)]
    if reporter.extra_contact_info:
        nodes.append(("extra_contact_info", reporter.extra_contact_info))
    nodes.append(("report_id", feedback.report_id))
    # The last second of the period, so that periods do not overlap (RFC 9990 3.1.1).
    nodes.append(("date_range", [("begin", str(period.begin)), ("end", str(period.end - 1))]))
    errors = list(_errors(feedback))[:MAX_ERRORS]
    if form == "rfc9990":
        if errors:
            nodes.append(("error", "; ".join(errors)))
        nodes.append(("generator", GENERATOR))
    else:
        nodes.extend(("error", error) for error in errors)
    return nodes


def _errors(feedback: Feedback) -> Iterator[str]:
    yield from feedback.published.errors
    if feedback.folded:
        yield (
            f"{feedback.folded} further messages exceeded the number of distinct rows and are not"
            " listed"
        )


def _published(published: StoredPolicy, form: Format) -> list[Node]:
    """The record as it was evaluated; p missing, or p, sp or np not valid, is p=none alone (RFC
    9990 3.1.1, RFC 9989 4.10.1)."""
    p, sp, np = (
        ("none", "", "")
        if published.invalid_policy or not published.p
        else (published.p, published.sp, published.np)
    )
    nodes: list[Node] = [("domain", published.policy_domain)]
    if form == "rfc7489":
        tail: list[Node] = [
            ("p", p),
            ("sp", sp or p),
            ("pct", str(100 if published.pct is None else published.pct)),
            ("fo", published.fo),
        ]
        return [*nodes, ("adkim", published.adkim), ("aspf", published.aspf), *tail]
    nodes.append(("p", p))
    nodes.extend((tag, value) for tag, value in (("sp", sp), ("np", np)) if value)
    nodes += [
        ("adkim", published.adkim),
        ("aspf", published.aspf),
        ("discovery_method", published.discovery_method),
        ("fo", published.fo),
    ]
    if published.testing is not None:
        nodes.append(("testing", "y" if published.testing else "n"))
    return nodes


def _record(row: Row, count: int, form: Format) -> list[Node]:
    evaluated: list[Node] = [
        ("disposition", _disposition(row, form)),
        ("dkim", "pass" if row.dkim_aligned else "fail"),
        ("spf", "pass" if row.spf_aligned else "fail"),
        *(("reason", _reason(reason, form)) for reason in _reasons(row)),
    ]
    return [
        (
            "row",
            [("source_ip", row.source_ip), ("count", str(count)), ("policy_evaluated", evaluated)],
        ),
        ("identifiers", _identifiers(row, form)),
        ("auth_results", [*_signatures(row.auth_dkim, form), *_spf(row.auth_spf, form)]),
    ]


def _disposition(row: Row, form: Format) -> str:
    """RFC 7489 knows no `pass` (RFC 9990 3)."""
    return "none" if form == "rfc7489" and row.disposition == "pass" else row.disposition


def _reasons(row: Row) -> tuple[StoredReason, ...]:
    """A reason is mandatory when alignment fails and what was done is not what was published (RFC
    9990 3.1.1.7)."""
    failed = not (row.dkim_aligned or row.spf_aligned)
    if failed and row.disposition != row.policy and not row.reasons:
        return (StoredReason("local_policy"),)
    return row.reasons


def _reason(reason: StoredReason, form: Format) -> list[Node]:
    """The override type in the words of the form (RFC 9990 3, RFC 9989 5.3)."""
    kind, comment = reason.type, reason.comment
    if form == "rfc9990" and kind in ("sampled_out", "forwarded"):
        kind, comment = (
            "local_policy",
            (comment if comment.startswith(reason.type) else f"{reason.type} {comment}".rstrip()),
        )
    elif form == "rfc7489" and kind == "policy_test_mode":
        kind, comment = "other", f"policy_test_mode {comment}".rstrip()
    nodes: list[Node] = [("type", kind)]
    if comment:
        nodes.append(("comment", comment))
    return nodes


def _identifiers(row: Row, form: Format) -> list[Node]:
    """envelope_from is empty for the null sender; RFC 7489 demands it always."""
    nodes: list[Node] = []
    if row.envelope_to:
        nodes.append(("envelope_to", row.envelope_to))
    if row.envelope_from is not None or form == "rfc7489":
        nodes.append(("envelope_from", row.envelope_from or ""))
    return [*nodes, ("header_from", row.header_from)]


def _signatures(signatures: tuple[DkimFact, ...], form: Format) -> Iterator[Node]:
    """RFC 9990 requires a selector."""
    for signature in signatures:
        if signature.selector or form == "rfc7489":
            nodes: list[Node] = [("domain", signature.domain)]
            if signature.selector:
                nodes.append(("selector", signature.selector))
            nodes.append(("result", signature.result))
            if signature.reason:
                nodes.append(("human_result", signature.reason))
            yield "dkim", nodes


def _spf(spf: SpfFact | None, form: Format) -> Iterator[Node]:
    """Always one element that names what was checked: readers drop whole reports for one that is
    missing or empty. The identity is MAIL FROM's even for the null sender: postmaster@HELO (RFC
    7208 2.4)."""
    if spf is None or not spf.domain:  # rows of older versions
        spf = SpfFact("none", INVALID)
    nodes: list[Node] = [("domain", spf.domain), ("scope", "mfrom")]
    if form == "rfc7489":
        yield "spf", [*nodes, ("result", "neutral" if spf.result == "policy" else spf.result)]
    elif spf.reason:
        yield "spf", [*nodes, ("result", spf.result), ("human_result", spf.reason)]
    else:
        yield "spf", [*nodes, ("result", spf.result)]

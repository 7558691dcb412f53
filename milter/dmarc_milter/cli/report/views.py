"""Reports as people and programs read them: tables of what is on its way, and of a report file,
whoever wrote it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from heapq import nlargest
from typing import TYPE_CHECKING, Any

import msgspec

from dmarc_milter.cli.tables import print_table
from dmarc_milter.cli.terminal import coloured, console, on_terminal, plain
from dmarc_milter.cli.times import shown
from dmarc_milter.core.report.mail import counted
from dmarc_milter.core.report.read import ReadRecord, ReadReport
from dmarc_milter.core.text import printable
from dmarc_milter.ledger.store.deliveries import Delivery
from dmarc_milter.ledger.store.destinations import ALWAYS, Suppression
from dmarc_milter.ledger.store.failures import Failure
from dmarc_milter.ledger.store.reports import Report
from dmarc_milter.ledger.store.store import Store

if TYPE_CHECKING:
    from dmarc_milter.reporting.run import Run

MAX_LINES = 500
"""Rows of one table."""
SHORT = 12
"""Digits of an id that a terminal shows."""


def row_of(
    report: Report, destinations: Sequence[dict[str, Any]], state: str = "", note: str = ""
) -> dict[str, Any]:
    """A report as `--json` has it: `begin` and `end` are the first and the last second of the
    period, as in the report itself."""
    return {
        "kind": "aggregate",
        "report_id": report.id,
        "policy_domain": report.policy_domain,
        "begin": report.begin,
        "end": report.end - 1,
        "rows": report.rows,
        "messages": report.messages + report.folded,
        "folded": report.folded,
        "destinations": list(destinations),
        "state": state or report.state.value,
        "part": report.part,
        "note": note or report.note,
    }


def rows_of(reports: Iterable[Report], store: Store) -> list[dict[str, Any]]:
    """Reports as `--json` has them, with what became of each address. Raises StoreError."""
    return [
        row_of(report, destinations_of(report, store.deliveries.of(report.id)))
        for report in reports
    ]


def failure_row(failure: Failure, deliveries: Sequence[Delivery]) -> dict[str, Any]:
    """A failure report with the same keys: its period is the moment of its message, its messages
    are its incidents."""
    facts = failure.facts
    published = facts.outcome.published if facts.outcome is not None else None
    addresses = [uri.address for uri in published.ruf] if published is not None else []
    destinations: list[dict[str, Any]] = [destination_of(one) for one in deliveries] or [
        {"address": address, "state": failure.state} for address in addresses
    ]
    return {
        "kind": "failure",
        "report_id": failure.id,
        "policy_domain": facts.policy_domain,
        "begin": failure.at,
        "end": failure.at,
        "rows": 1,
        "messages": failure.incidents,
        "folded": 0,
        "destinations": destinations,
        "state": failure.state,
        "part": 1,
        "note": failure.last_reply,
        "source_ip": facts.source_ip,
        "author_domain": facts.author_domain,
        "status": facts.status,
    }


def of_id(identity: str, store: Store) -> dict[str, Any] | None:
    """The report or failure report of this id as `--json` has it. Raises StoreError."""
    report = store.reports.get(identity)
    if report is not None:
        return rows_of([report], store)[0]
    failure = store.failures.get(identity)
    return failure_row(failure, store.deliveries.of(identity)) if failure is not None else None


def destinations_of(report: Report, deliveries: Sequence[Delivery]) -> list[dict[str, Any]]:
    """What became of each address; before the report is built, the published ones."""
    if not deliveries:
        return [
            {"address": uri.address, "state": report.state.value} for uri in report.published.rua
        ]
    return [destination_of(delivery) for delivery in deliveries]


def destination_of(delivery: Delivery) -> dict[str, Any]:
    """One address, and what it said last."""
    return {
        "address": delivery.address,
        "state": delivery.state.value,
        "format": delivery.format,
        "attempts": delivery.attempts,
        "next_at": delivery.next_at,
        "last_at": delivery.last_at,
        "reply": delivery.last_reply,
    }


def print_lines(rows: Iterable[dict[str, Any]]) -> None:
    """One JSON object a line."""
    for row in rows:
        print(msgspec.json.encode(plain(row)).decode())


def print_reports(rows: Sequence[dict[str, Any]]) -> None:
    """A line for each report, and one below it for each destination; whatever a domain is called,
    the other columns stay whole on 80 columns."""
    columns = {
        "report": "left",
        "period (UTC)": "left",
        "state": "left",
        "messages": "right",
        "domain / destination": "left",
    }
    cells: list[list[object]] = []
    for row in rows[:MAX_LINES]:
        begin = datetime.fromtimestamp(row["begin"], UTC).strftime("%Y-%m-%d")
        name = row["report_id"][:SHORT] if on_terminal() else row["report_id"]
        cells.append([name, begin, coloured(row["state"]), f"{row['messages']:,}", _about(row)])
        cells.extend(
            ["", "", coloured(destination["state"]), "", _destination(destination)]
            for destination in row["destinations"]
        )
    print_table(columns, cells)
    if len(rows) > MAX_LINES:
        print(f"and {len(rows) - MAX_LINES} more; --json prints all")
    print_totals(rows)


def print_totals(rows: Sequence[dict[str, Any]]) -> None:
    """How many reports of each state, and messages in all."""
    states = Counter(row["state"] for row in rows)
    words = ", ".join(f"{number:,} {state}" for state, number in sorted(states.items()))
    messages = sum(row["messages"] for row in rows)
    print(f"{counted(len(rows), 'report')} ({words}), {counted(messages, 'message')}")


def _about(row: dict[str, Any]) -> str:
    """What a report is about, and what there is to say of it."""
    words = [row["policy_domain"]]
    if row["kind"] == "failure":
        words.append(f"failure report: {row['status']} from {row['source_ip']}")
    if row["note"]:
        words.append(row["note"])
    return "  ".join(words)


def _destination(destination: dict[str, Any]) -> str:
    words = [destination["address"]]
    if destination.get("format"):
        words.append(destination["format"])
    if destination.get("attempts"):
        words.append(f"{destination['attempts']} tried")
    if destination["state"] == "queued" and destination.get("next_at"):
        words.append(f"next {shown(destination['next_at'])}")
    if destination.get("reply"):
        words.append(destination["reply"])
    return "  ".join(words)


DESTINATION_COLUMNS = {
    "destination": "left",
    "state": "left",
    "tried": "right",
    "at (UTC)": "left",
    "said": "left",
}


def print_destinations(destinations: Sequence[dict[str, Any]]) -> None:
    """Below a report of ours: where it went."""
    if destinations:
        rows = [
            (
                destination["address"],
                coloured(destination["state"]),
                destination.get("attempts", 0),
                shown(destination["last_at"]) if destination.get("last_at") else "",
                destination.get("reply", ""),
            )
            for destination in destinations
        ]
        print_table(DESTINATION_COLUMNS, rows)


def print_suppressions(suppressions: Sequence[Suppression]) -> None:
    if suppressions:
        rows = [
            (
                _whom(suppression),
                shown(suppression.until) if suppression.until < ALWAYS else "always",
                suppression.reason,
            )
            for suppression in suppressions
        ]
        print_table({"not written to": "left", "until (UTC)": "left", "why": "left"}, rows)


def _whom(suppression: Suppression) -> str:
    about = suppression.policy_domain
    return f"{suppression.address} about {about}" if about else suppression.address


def print_run(done: Run) -> None:
    """What a run of the job did, in a sentence."""
    built = {state.value: number for state, number in sorted(done.built.items())}
    sent = {state.value: number for state, number in sorted(done.sent.items()) if number}
    failures: dict[str, int] = {state: number for state, number in sorted(done.failures.items())}
    held = {"held by a limit of the day": done.held} if done.held else {}
    kinds: dict[str, dict[str, int]] = {
        "reports": built,
        "failure reports": failures,
        "deliveries": sent | held,
    }
    words = [
        f"{kind}: {', '.join(f'{number} {state}' for state, number in found.items())}"
        for kind, found in kinds.items()
        if found
    ]
    print("; ".join(words) or "nothing was due")


def print_shown(report: ReadReport, became: dict[str, Any]) -> None:
    """A report file as `--json` has it, on one line. Its records are written one by one: there may
    be tens of thousands."""
    found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(report, records=()))
    found |= {
        "messages": report.messages,
        "passed": passed(report),
        "failed": sum(record.count for record in report.records) - passed(report),
        "policy_domain": report.policy.get("domain", ""),
        "rows": len(report.records),
    } | became
    del found["records"]
    out = sys.stdout
    out.write(msgspec.json.encode(found).decode()[:-1] + ',"records":[')
    for number, record in enumerate(report.records):
        out.write("," * (number > 0) + msgspec.json.encode(record).decode())
    out.write("]}\n")


def print_show(reports: Sequence[ReadReport]) -> None:
    """A report file as tables. Its texts are somebody else's: printable ASCII of bounded length is
    all that reaches the terminal."""
    from rich.text import Text

    for report in reports:
        out = console()
        out.print(
            f"Report {_safe(report.report_id)} by {_safe(report.org_name)} <{_safe(report.email)}>"
        )
        good = passed(report)
        failed = sum(record.count for record in report.records) - good
        out.print(
            f"{shown(report.begin)} to {shown(report.end)} UTC,"
            f" {counted(report.messages, 'message')}: {good:,} passed DMARC, {failed:,} failed"
        )
        for warning in report.warnings:
            out.print(Text(f"warning: {_safe(warning)}", "yellow"))
        for error in report.errors[:10]:
            out.print(f"error: {_safe(error)}")
        out.print(
            "policy: "
            + " ".join(
                f"{_safe(tag)}={_safe(value)}" for tag, value in list(report.policy.items())[:20]
            )
        )
        rows = nlargest(MAX_LINES, report.records, key=lambda row: row.count)
        columns = {
            "messages": "right",
            "source": "left",
            "From": "left",
            "done": "left",
            "dkim": "left",
            "spf": "left",
            "authenticated": "left",
        }
        print_table(columns, [_record(row) for row in rows])
        if len(report.records) > MAX_LINES:
            out.print(f"and {len(report.records) - MAX_LINES} more rows; --json prints all")


def passed(report: ReadReport) -> int:
    """Messages of a report that passed DMARC: by either mechanism, aligned."""
    return sum(record.count for record in report.records if "pass" in (record.dkim, record.spf))


def _signature(one: Mapping[str, str]) -> str:
    selector = f" (s={_safe(one['selector'])})" if one.get("selector") else ""
    return f"dkim={_safe(one.get('result', ''))} {_safe(one.get('domain', ''))}{selector}"


def _record(record: ReadRecord) -> list[object]:
    names = [_signature(one) for one in record.auth_dkim[:4]]
    names += [
        f"spf={_safe(one.get('result', ''))} {_safe(one.get('domain', ''))}"
        for one in record.auth_spf[:2]
    ]
    names += [
        f"({_safe(one.get('type', ''))} {_safe(one.get('comment', ''))})"
        for one in record.reasons[:3]
    ]
    words = [
        coloured(_safe(record.disposition)),
        coloured(_safe(record.dkim)),
        coloured(_safe(record.spf)),
    ]
    return [
        f"{record.count:,}",
        _safe(record.source_ip),
        _safe(record.header_from),
        *words,
        ", ".join(names),
    ]


def _safe(text: str) -> str:
    return printable(text, 200)

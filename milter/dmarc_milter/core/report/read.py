"""Reading aggregate reports, ours and other people's: XML, gzip, zip or a whole mail, of either
RFC, bounded against bombs.

A report that is not as the schema wants it is read as far as it can be, and says what was wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec

from dmarc_milter.core.report.archives import Unpacker
from dmarc_milter.core.report.budget import Budget, Spent, UnreadableReport, Words
from dmarc_milter.core.report.lenient_numbers import count, moment
from dmarc_milter.core.report.lenient_xml import MAX_TEXT, Event, events

__all__ = ["MAX_FILE", "ReadRecord", "ReadReport", "UnreadableReport", "read"]

MAX_FILE = 32 << 20
"""Bytes of a file as it comes."""
MAX_XML = 64 << 20
"""Bytes of all documents of a file unpacked, with the packages they lie in."""
MAX_ELEMENTS = 1_000_000
MAX_KEPT = 28 << 20
"""Bytes of memory for the records of a file, as they are estimated."""
MAX_SECONDS = 3.0
"""Of a processor."""
MAX_DOCUMENTS = 20
"""Documents of one file."""
MAX_DEPTH = 40
MAX_PARTS = 100
"""Signatures, reasons, errors or policy tags of one record or report."""
RECORD, RESULT, WORD = 250, 230, 60
"""Bytes of memory that a record, each result or reason of it, and each text take beside their
characters."""

METADATA = ("report_id", "org_name", "email", "extra_contact_info", "generator")
SECTIONS = ("report_metadata", "policy_published", "record")
INSIDE = {"row": "record", "identifiers": "record", "auth_results": "record"}
"""Elements that can stand in one place only, so that what is not closed before them is closed by
them."""


class ReadRecord(msgspec.Struct, frozen=True):
    """One record. Words are as the report has them, unchecked."""

    source_ip: str
    count: int
    disposition: str = ""
    dkim: str = ""
    spf: str = ""
    reasons: tuple[dict[str, str], ...] = ()
    header_from: str = ""
    envelope_from: str = ""
    envelope_to: str = ""
    auth_dkim: tuple[dict[str, str], ...] = ()
    auth_spf: tuple[dict[str, str], ...] = ()


class ReadReport(msgspec.Struct, frozen=True):
    """One report. `begin` and `end` are seconds since 1970; `policy` is policy_published, tag by
    tag; `warnings` what was wrong with it."""

    report_id: str
    org_name: str
    email: str
    begin: int
    end: int
    policy: dict[str, str]
    records: tuple[ReadRecord, ...]
    errors: tuple[str, ...] = ()
    generator: str = ""
    extra_contact_info: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def messages(self) -> int:
        return sum(record.count for record in self.records)


def read(data: bytes, *, clock: Callable[[], float] = lambda: 0.0) -> list[ReadReport]:
    """Every report in a file. Raises UnreadableReport where there is none that can be read.

    All parts together have one budget; where it ends, the reports read so far are the answer.
    `clock` counts seconds.
    """
    if len(data) > MAX_FILE:
        raise UnreadableReport(f"more than {MAX_FILE >> 20} MiB")
    file = Words()
    budget = Budget(MAX_XML, MAX_ELEMENTS, MAX_KEPT, MAX_SECONDS, clock)
    unpacker = Unpacker(budget, file)
    reports: list[ReadReport] = []
    problem = ""
    for pieces in unpacker.documents(data):
        try:
            for report in _document(pieces, budget):
                if len(reports) == MAX_DOCUMENTS:
                    raise Spent(f"more than {MAX_DOCUMENTS} reports")
                reports.append(report)
        except UnreadableReport as error:
            problem = problem or str(error)
            if isinstance(error, Spent):
                file.say(f"{error}: the rest is not read")
                break
            file.say(str(error))
    if not reports:
        raise UnreadableReport(problem or unpacker.problem or "no aggregate report in it")
    if said := file.all():
        reports[-1] = msgspec.structs.replace(reports[-1], warnings=(*reports[-1].warnings, *said))
    return reports


def _document(pieces: Iterator[bytes], budget: Budget) -> Iterator[ReadReport]:
    """The reports of one document. Raises UnreadableReport for one that has none, Spent after what
    was read in time."""
    words = Words()
    builder = _Builder(budget, words)
    failure: UnreadableReport | None = None
    try:
        for event in events(pieces, budget, words):
            builder.take(event)
            yield from builder.made()
    except UnreadableReport as error:
        failure = error
        if not isinstance(error, Spent) and str(error).startswith("damaged"):
            raise  # half a package is not taken for a whole one
    builder.end()
    yield from builder.made()
    if failure is not None or not builder.any:
        raise failure or UnreadableReport(builder.why())


class _Builder:
    """Makes reports of elements. The path of open elements is bounded; what stands deeper is passed
    over."""

    def __init__(self, budget: Budget, words: Words) -> None:
        self._budget, self._words = budget, words
        self._path: list[str] = []
        self._deeper = 0
        self._texts: list[str] = []
        self._report: _Report | None = None
        self._made: list[ReadReport] = []
        self._root = ""
        self.any = False

    def made(self) -> list[ReadReport]:
        """Reports that are complete since the last call."""
        found, self._made = self._made, []
        return found

    def why(self) -> str:
        """Why there is no report."""
        if self._root and self._root != "feedback":
            return f"an XML document of another kind: {self._root[:60]}"
        return "not well-formed XML: it ends before it says anything"

    def take(self, event: Event) -> None:
        kind, name, text = event
        if kind == "leaf":
            known = name in SECTIONS or name in INSIDE
            if self._deeper == 0 and self._report is not None and not known:
                self._report.leaf(self._path, name, text)
                return
            self._start(name)
            self._texts = [text]
            self._end(name)
        elif kind == "text":
            if sum(map(len, self._texts)) < MAX_TEXT:
                self._texts.append(text)
        elif kind == "start":
            self._start(name)
        else:
            self._end(name)

    def _start(self, name: str) -> None:
        self._root = self._root or name
        if self._report is not None and (name in SECTIONS or name in INSIDE):
            self._close_to(INSIDE.get(name, "feedback"))
        if len(self._path) >= MAX_DEPTH:
            self._deeper += 1
            self._words.say("elements nested too deep are passed over")
            return
        if self._report is None and name in ("feedback", *SECTIONS):
            if name != "feedback":
                self._words.say("there is no feedback element around it")
                self._path.append("feedback")
            self._report = _Report(self._budget, self._words)
        self._path.append(name)
        self._texts = []
        if self._report is not None:
            self._report.start(self._path)

    def _close_to(self, parent: str) -> None:
        """Close what stands open inside `parent`."""
        if parent in self._path and self._path[-1] != parent:
            self._words.say(f"{self._path[-1][:40]} is not closed")
            self._deeper = 0
            while self._path[-1] != parent:
                self._pop()

    def _end(self, name: str) -> None:
        if self._deeper:
            self._deeper -= 1
            return
        if name not in self._path:
            self._words.say("an element is closed that was not open")
            return
        while self._path[-1] != name:
            self._words.say(f"{self._path[-1][:40]} is not closed")
            self._pop()
        self._pop()

    def _pop(self) -> None:
        name = self._path.pop()
        text, self._texts = "".join(self._texts).strip()[:MAX_TEXT], []
        if self._report is None:
            return
        if text:
            self._report.leaf(self._path, name, text)
        self._report.end(self._path, name)
        if name == "feedback":
            self._finish()

    def _finish(self) -> None:
        if self._report is not None:
            self.any = True
            self._made.append(self._report.built())
        self._report = None

    def end(self) -> None:
        """The document is over. A report that is not closed counts if it says anything."""
        if self._report is None:
            return
        self._words.say("the document ends early")
        while len(self._path) > 1:
            with suppress(Spent):  # what is too much is left out
                self._pop()
        if self._report is not None and self._report.says_something:
            self._finish()


class _Report:
    """A report on its way, record by record."""

    def __init__(self, budget: Budget, words: Words) -> None:
        self._budget, self._words = budget, words
        self._metadata: dict[str, str] = {}
        self._policy: dict[str, str] = {}
        self._errors: list[str] = []
        self._records: list[ReadRecord] = []
        self._record: dict[str, str] = {}
        self._parts: dict[str, list[dict[str, str]]] = {}
        self._shared: dict[str, str] = {}

    @property
    def says_something(self) -> bool:
        return bool(self._metadata or self._policy or self._records)

    def start(self, path: list[str]) -> None:
        name, parent = path[-1], path[-2] if len(path) > 1 else ""
        if name == "record":
            self._record, self._parts = {}, {}
        elif (parent == "auth_results" and name in ("dkim", "spf")) or (
            parent == "policy_evaluated" and name == "reason"
        ):
            self._part(name).append({})

    def _part(self, name: str) -> list[dict[str, str]]:
        """The results or reasons of this name; of too many the last is written over."""
        found = self._parts.setdefault(name, [])
        if len(found) >= MAX_PARTS:
            self._words.say(f"a record with more than {MAX_PARTS} of {name}")
            found.pop()
        return found

    def leaf(self, path: list[str], name: str, text: str) -> None:
        """A text, by where it stands."""
        parent = path[-1] if path else ""
        above = path[-2] if len(path) > 1 else ""
        if parent in ("dkim", "spf") and above == "auth_results":
            self._into(self._parts.get(parent, [{}])[-1], name, text)
        elif parent == "reason":
            self._into(self._parts.get("reason", [{}])[-1], name, text)
        elif parent in ("row", "identifiers", "policy_evaluated"):
            self._into(self._record, name, text)
        elif parent == "policy_published":
            self._into(self._policy, name, text)
        elif parent == "report_metadata" and name == "error" and len(self._errors) < MAX_PARTS:
            self._errors.append(text)
        elif parent in ("report_metadata", "date_range") and (
            name in METADATA or parent == "date_range"
        ):
            self._into(self._metadata, name, text)

    def _into(self, place: dict[str, str], name: str, text: str) -> None:
        """The first of a name counts; equal texts are kept once."""
        if name not in place and len(place) < MAX_PARTS:
            place[self._once(name)] = self._once(text)

    def _once(self, text: str) -> str:
        found = self._shared.get(text)
        if found is None:
            self._budget.keep(len(text) + WORD)
            if len(self._shared) < 20_000:
                self._shared[text] = text
            return text
        return found

    def end(self, path: list[str], name: str) -> None:
        if name != "record" or not path or not (self._record or self._parts):
            return
        self._budget.keep(RECORD + RESULT * sum(map(len, self._parts.values())))
        row, parts = self._record, {name: tuple(found) for name, found in self._parts.items()}
        record = ReadRecord(
            source_ip=row.get("source_ip", ""),
            count=count(row.get("count", ""), self._words),
            disposition=row.get("disposition", ""),
            dkim=row.get("dkim", ""),
            spf=row.get("spf", ""),
            reasons=parts.get("reason", ()),
            header_from=row.get("header_from", ""),
            envelope_from=row.get("envelope_from", ""),
            envelope_to=row.get("envelope_to", ""),
            auth_dkim=parts.get("dkim", ()),
            auth_spf=parts.get("spf", ()),
        )
        self._records.append(record)
        self._record, self._parts = {}, {}

    def built(self) -> ReadReport:
        begin, end = (
            moment(self._metadata.get(name, ""), name, self._words) for name in ("begin", "end")
        )
        if end < begin:
            self._words.say("it ends before it begins")
        said = self._metadata.get
        return ReadReport(
            report_id=said("report_id", ""),
            org_name=said("org_name", ""),
            email=said("email", ""),
            begin=begin,
            end=end,
            policy=self._policy,
            records=tuple(self._records),
            errors=tuple(self._errors),
            generator=said("generator", ""),
            extra_contact_info=said("extra_contact_info", ""),
            warnings=self._words.all(),
        )

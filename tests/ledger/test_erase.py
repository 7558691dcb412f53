"""`store erase`: a domain, an address or a source is forgotten, here and for good."""

from __future__ import annotations

import gzip
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.stored import decode, encode
from dmarc_milter.ledger import erase
from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.sent_log import HandedOver, SentLog, read
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolOptions, SpoolRow
from dmarc_milter.ledger.store import apply_batch, rollups
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.database import attempt, fetch
from dmarc_milter.ledger.store.reports import Document, NewDelivery, ReportState
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.ledger.tombstones import Target, Tombstones
from fakes.daemon import toml
from fakes.evaluations import NOON, evaluation
from fakes.stores import fresh_schema, spool_row, upgraded
from live.postgres import Postgres

NOW = int(NOON.timestamp())


class Place:
    """One host: configuration, spool and store."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, upgraded(url)
        self.spool = SpoolFile(folder / "spool.db")
        self.store = Store.open(url)
        self.config = folder / "c.toml"
        self.config.write_text(toml({"store": {"url": url, "spool": str(folder / "spool.db")}}))

    def saw(self, *evaluations: Evaluation, sample: bytes | None = None) -> None:
        self.spool.write([spool_row(each, sample) for each in evaluations])
        assert drain(self.spool, self.store).problem == ""

    def ask(self, *words: str) -> int:
        return main([*words, "--config", str(self.config)])

    def close(self) -> None:
        self.spool.close()
        self.store.close()

    def traces(self, *needles: bytes) -> dict[str, int]:
        """In which tables, and in which files of this host, one of these stands."""
        found: dict[str, int] = {}
        for table in TABLES:
            with self.store.database.transaction(write=False) as transaction:
                rows = transaction.all(f"SELECT * FROM {table}")
            number = sum(any(needle in _bytes(row) for needle in needles) for row in rows)
            found |= {table: number} if number else {}
        spool = [*self.spool.batch(1000), *self.spool.kept_batch(0, 1000)]
        number = sum(any(needle in row.facts for needle in needles) for _, row in spool)
        return found | ({"spool": number} if number else {})


TABLES = (
    "decision", "daily", "known_domain", "quota", "report", "report_row", "report_document",
    "delivery", "destination", "spent", "authorisation", "failure", "outcome_sum",
    "author_day", "author_name", "handed_over", "parked", "tombstone", "report_count",
    "incident_count",
)  # fmt: skip


def _bytes(row: tuple[Any, ...]) -> bytes:
    parts = (
        bytes(value) if isinstance(value, (bytes, memoryview)) else str(value).encode()
        for value in row
    )
    return b" ".join(parts)


@pytest.fixture
def place(tmp_path: Path, store_url: str) -> Iterator[Place]:
    with closing(Place(tmp_path, store_url)) as place:
        yield place


def mixed(place: Place) -> None:
    """Mail of two domains, and of one that names the other in its envelope only."""
    place.saw(
        evaluation("legit.example", source_ip="192.0.2.1"),
        evaluation("private.example", source_ip="192.0.2.2"),
        evaluation("mail.private.example", source_ip="192.0.2.3"),
        evaluation("other.example", source_ip="198.51.100.9"),
        sample=b"From: x\r\n",
    )
    place.saw(replace(evaluation("private.example", passed=True), at=NOON))
    place.store.destinations.remember("private.example")


@pytest.mark.parametrize("name", ["private.example", "PRIVATE.example."])
def test_a_domain_and_what_is_below_it_is_forgotten_everywhere(place: Place, name: str) -> None:
    """Log, report rows, failure queue, undelivered reports, drained spool rows, sums."""
    mixed(place)
    assert set(place.traces(b"private.example", b"elpmaxe.etavirp")) >= {
        "decision", "report", "report_row", "failure", "author_name", "outcome_sum",
        "author_day", "spool",
    }  # fmt: skip
    total = sum(each.messages for each in place.store.decisions.totals())
    assert place.ask("store", "erase", "--domain", name) == 0
    assert place.traces(b"private.example", b"elpmaxe.etavirp") == {}
    assert place.store.decisions.count() == 2
    assert sum(each.messages for each in place.store.decisions.totals()) == total
    assert place.ask("store", "erase", "--domain", name) == 1, "nothing is left"


def test_a_name_that_only_ends_alike_stays(place: Place) -> None:
    """notprivate.example is somebody else's."""
    place.saw(evaluation("notprivate.example"), evaluation("private.example.net"))
    assert place.ask("store", "erase", "--domain", "private.example") == 1
    assert place.store.decisions.count() == 2


def test_a_dry_run_counts_and_changes_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same numbers as the real one."""
    mixed(place)
    before = place.traces(b"e")
    capsys.readouterr()
    assert place.ask("store", "erase", "--domain", "private.example", "--dry-run", "--json") == 0
    dry = json.loads(capsys.readouterr().out)
    assert place.traces(b"e") == before
    assert not (place.folder / "erased.log").exists()
    place.ask("store", "erase", "--domain", "private.example", "--json")
    done = json.loads(capsys.readouterr().out)
    assert (dry["dry_run"], done["dry_run"]) == (True, False)
    assert dry["erased"]["decisions"] == done["erased"]["decisions"] == 3
    assert set(dry["erased"]) == set(done["erased"])


@pytest.mark.parametrize(
    "source",
    ["192.0.2.2", "192.0.2.2/32", "192.0.2.2/31", "::ffff:192.0.2.2", "::ffff:192.0.2.2/127"],
)
def test_a_source_is_forgotten_and_the_reports_of_others_stay(place: Place, source: str) -> None:
    """Rows of it leave their reports, which count the others."""
    place.saw(
        evaluation(source_ip="192.0.2.1"),
        evaluation(source_ip="192.0.2.2"),
        evaluation(source_ip="192.0.2.2"),
        evaluation(source_ip="192.0.2.20"),
    )
    assert place.ask("store", "erase", "--source", source) == 0
    assert place.store.decisions.count() == 2
    [report] = place.store.reports.find()
    assert (report.messages, report.rows) == (2, 2)
    sources = sorted(row.source_ip for row, _ in place.store.reports.rows(report.id))
    assert sources == ["192.0.2.1", "192.0.2.20"]


def test_a_report_that_was_built_and_has_not_left_is_built_again(place: Place) -> None:
    """Without what was erased."""
    place.saw(evaluation(source_ip="192.0.2.1"), evaluation(source_ip="192.0.2.2"))
    [report] = place.store.reports.claim("me", ended_before=2**60, at_once=True)
    place.store.reports.queue(
        report.id,
        "me",
        [Document("rfc9990", "x", b"192.0.2.2")],
        [NewDelivery("a@x.example", "rfc9990", 0)],
    )
    place.ask("store", "erase", "--source", "192.0.2.2")
    kept = place.store.reports.get(report.id)
    assert kept is not None
    assert (kept.state, kept.rows) == (ReportState.DUE, 1)
    assert place.store.reports.document(report.id, "rfc9990") is None
    assert place.store.deliveries.of(report.id) == []


def test_an_address_is_forgotten(place: Place) -> None:
    """Deliveries, and the lines of the sent log; what is due does not go there."""
    place.saw(evaluation())
    log = SentLog(place.folder / "sent-reports.log")
    for address in ("agg@legit.example", "other@x.example"):
        log.before(HandedOver(NOW, "id", 1, 2, "me", address))
    place.store.handed_over.tell(read(log.path))
    assert place.ask("store", "erase", "--address", "AGG@legit.example") == 0
    assert [line.address for line in read(log.path)] == ["other@x.example"]
    assert set(place.traces(b"agg@legit.example")) <= {"decision", "spool"}
    [report] = place.store.reports.find()
    assert report.published.rua == ()


@pytest.mark.parametrize(
    ("kept", "typed"),
    [
        ("agg@xn--mnchen-3ya.example", "agg@münchen.example"),
        ("agg@xn--mnchen-3ya.example", "AGG@mu\u0308nchen\u3002Example."),
        ("agg@xn--mnchen-3ya.example", "<agg@XN--Mnchen-3ya.example>"),
        ("agg@legit.example", "mailto:agg@legit.example"),
        ("agg@legit.example", " <mailto:agg@LEGIT.example.> "),
        ('"a b"@legit.example', '"A b"@legit.example'),
        ("agg+dmarc@legit.example", "agg+dmarc@legit.example"),
    ],
)
def test_an_address_is_found_however_it_is_typed(place: Place, kept: str, typed: str) -> None:
    """Its domain is kept in A-labels and small letters (RFC 5890 2.3.2.1)."""
    log = SentLog(place.folder / "sent-reports.log")
    log.before(HandedOver(NOW, "id", 1, 2, "me", kept))
    place.store.handed_over.tell(read(log.path))
    assert place.ask("store", "erase", "--address", typed) == 0
    assert read(log.path) == []
    assert place.traces(b"agg", b"a b") == {}


@pytest.mark.parametrize(
    "typed", ["mu\u0308nchen.example", "M\u00dcNCHEN\u3002EXAMPLE.", "xn--MNCHEN-3ya.example"]
)
def test_a_domain_is_found_however_it_is_typed(place: Place, typed: str) -> None:
    place.saw(evaluation("mail.xn--mnchen-3ya.example"), evaluation("legit.example"))
    assert place.ask("store", "erase", "--domain", typed) == 0
    assert place.traces(b"xn--mnchen") == {}
    assert place.store.decisions.count() == 1


@pytest.mark.parametrize("typed", ["[2001:db8::7]", "[IPv6:2001:DB8::7]", "2001:db8:0:0::7/128"])
def test_a_source_is_found_however_it_is_typed(place: Place, typed: str) -> None:
    place.saw(evaluation(source_ip="2001:db8::7"), evaluation(source_ip="192.0.2.1"))
    assert place.ask("store", "erase", "--source", typed) == 0
    assert place.store.decisions.count() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"helo": "Mail.PRIVATE.Example"},
        {"message_id": "1@Mail.Private.Example"},
        {"envelope_to": ("private.example",)},
        {"malformed_from": "two: a@Private.example, b@legit.example"},
    ],
)
def test_what_names_the_domain_in_a_strangers_text_is_forgotten(
    place: Place, change: dict[str, Any]
) -> None:
    """HELO and Message-ID are kept as they were written, in large letters too."""
    facts = msgspec.structs.replace(decode(spool_row(evaluation("legit.example")).facts), **change)
    other = spool_row(evaluation("legit.example"))
    place.spool.write([SpoolRow(facts.id, encode(facts), None), other])
    assert drain(place.spool, place.store).problem == ""
    assert place.ask("store", "erase", "--domain", "private.example") == 0
    assert place.store.decisions.count() == 1
    assert place.traces(b"rivate.", b"RIVATE.") == {}


@pytest.mark.parametrize(
    "words",
    [("--address", "Jane@private.example"), ("--domain", "private.example")],
)
def test_a_header_that_waits_for_a_failure_report_is_forgotten(
    place: Place, words: tuple[str, str]
) -> None:
    """Its text names an address or a domain that nothing else of the message does."""
    place.saw(evaluation("legit.example"), sample=b"Reply-To: <jane@Private.example>\r\n")
    place.saw(evaluation("other.example"), sample=b"Reply-To: <jane@notprivate.example>\r\n")
    assert place.traces(b"jane@Private.example") == {"failure": 1}
    assert place.ask("store", "erase", *words) == 0
    assert place.traces(b"jane@Private.example") == {}
    assert place.traces(b"jane@notprivate.example") == {"failure": 1}
    samples = [row.sample for _, row in place.spool.kept_batch(0, 10)]
    assert [bool(sample) for sample in samples] == [False, True]
    late = spool_row(evaluation("third.example"), b"To: jane@private.example\r\n")
    place.store.apply(Batch("late", "mx2", [(1, late)]))
    assert place.store.decisions.count() == 3
    assert place.traces(b"jane@private.example") == {}


def built(place: Place, content: bytes) -> str:
    """The id of a report that was sent; its document says `content`."""
    [report] = place.store.reports.claim("me", ended_before=2**60, at_once=True)
    document = Document("rfc9990", "x", gzip.compress(content))
    place.store.reports.queue(
        report.id, "me", [document], [NewDelivery("a@x.example", "rfc9990", 0)]
    )
    with place.store.database.transaction() as transaction:
        transaction.run("UPDATE report SET state = 'sent'")
    return report.id


@pytest.mark.parametrize(
    ("words", "content", "gone"),
    [
        (("--source", "192.0.2.0/30"), b"<source_ip>192.0.2.2</source_ip>", True),
        (("--source", "192.0.2.2"), b"<source_ip>192.0.2.29</source_ip>", False),
        (("--domain", "private.example"), b"<header_from>x.Private.example</header_from>", True),
        (("--domain", "private.example"), b"<header_from>notprivate.example</header_from>", False),
    ],
)
def test_a_sent_report_that_names_it_is_forgotten(
    place: Place, words: tuple[str, str], content: bytes, gone: bool
) -> None:
    """Of a network and of one address, of the name itself and no name that only looks alike."""
    place.saw(evaluation("legit.example", source_ip="198.51.100.1"))
    identity = built(place, content)
    assert place.ask("store", "erase", *words) == int(not gone)
    assert (place.store.reports.document(identity, "rfc9990") is None) is gone


def test_what_cannot_be_read_goes_by_its_words(place: Place) -> None:
    """Rows of a newer program: nothing says where in them a network would be."""
    with place.store.database.transaction() as transaction:
        transaction.many(
            "INSERT INTO parked (id, at, reason, facts) VALUES (?, ?, '', ?)",
            [("a", NOW, b"\xd9!192.0.2.2\xa0"), ("b", NOW, b"\xd9!198.51.100.2\xa0")],
        )
    assert place.ask("store", "erase", "--source", "192.0.2.0/30") == 0
    assert fetch(place.store.database, "SELECT id FROM parked") == [("b",)]


def test_each_question_of_an_erasure_reads_a_bounded_number_of_rows(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of what is looked at, not of what is found; messages of one second are one page."""
    monkeypatch.setattr(erase, "SIFTED", 2)
    monkeypatch.setattr(erase, "PAGE", 2)
    times = [NOON + timedelta(seconds=number // 3) for number in range(9)]
    names = ["private.example" if number in (1, 4, 8) else "b.example" for number in range(9)]
    place.saw(*(replace(evaluation(name), at=at) for name, at in zip(names, times, strict=True)))
    for words, rest in ((("--domain", "private.example"), 6), (("--source", "0.0.0.0/0"), 0)):
        assert place.ask("store", "erase", *words) == 0
        assert place.store.decisions.count() == rest


# --- nothing comes back ---------------------------------------------------------------------------


def test_a_tombstone_stops_what_is_handed_over_later(place: Place) -> None:
    """Another host's spool that was away; what is decided after the erasure is recorded again."""
    place.saw(evaluation("legit.example"))
    place.ask("store", "erase", "--domain", "private.example")
    late = [evaluation("private.example"), evaluation("legit.example")]
    place.store.apply(
        Batch("late", "mx2", [(n + 1, spool_row(each)) for n, each in enumerate(late)])
    )
    assert place.store.decisions.count() == 2
    assert place.traces(b"private.example") == {}
    new = replace(evaluation("private.example"), at=datetime.now(UTC) + timedelta(seconds=5))
    place.store.apply(Batch("late", "mx2", [(3, spool_row(new))]))
    assert place.store.decisions.count() == 3


def test_nothing_is_judged_while_a_transaction_is_open(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a message costs its sender says: a server ends a session that is idle meanwhile, and a
    SQLite store waits."""
    place.saw(evaluation("legit.example"))
    place.ask("store", "erase", "--domain", "private.example")
    opened, judged = [0], [0]
    transaction, digest = place.store.database.transaction, Tombstones._digest

    @contextmanager
    def counted(*, write: bool = True) -> Iterator[Any]:
        with transaction(write=write) as one:
            opened[0] += 1
            try:
                yield one
            finally:
                opened[0] -= 1

    def outside(self: Tombstones, kind: str, value: str) -> str:
        assert opened[0] == 0
        judged[0] += 1
        return digest(self, kind, value)

    monkeypatch.setattr(place.store.database, "transaction", counted)
    monkeypatch.setattr(Tombstones, "_digest", outside)
    some = [spool_row(evaluation(name), b"x") for name in ("private.example", "legit.example")]
    place.store.apply(Batch("late", "mx2", list(enumerate(some, 1))))
    assert judged[0] > 0
    assert place.store.last_sequence("late") == 2
    assert place.traces(b"private.example") == {}


def test_a_batch_that_was_judged_before_the_erasure_is_judged_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing of it is left: its numbers are counted all the same."""
    place.saw(evaluation("legit.example"))
    prepare, asked = apply_batch.prepare, list[int]()

    def overtaken(*arguments: Any) -> Any:
        if not asked:
            asked.append(place.ask("store", "erase", "--domain", "private.example"))
        return prepare(*arguments)

    monkeypatch.setattr(apply_batch, "prepare", overtaken)
    late = [(1, spool_row(evaluation("private.example")))]
    assert place.store.apply(Batch("late", "mx2", late)) == 0
    assert asked == [1]
    assert place.store.last_sequence("late") == 1
    assert place.traces(b"private.example").keys() <= {"known_domain", "quota", "report"}


def test_an_erasure_waits_for_a_batch_that_is_being_counted(postgres_server: Postgres) -> None:
    """Or else it would look before the batch is there to be seen."""
    url = upgraded(fresh_schema(postgres_server))
    with closing(Store.open(url)) as store:
        store.apply(Batch("a", "mx1", [(1, spool_row(evaluation("legit.example")))]))
        prepared = erase.prepare(store, Target("domain", "private.example"), NOW)
        with psycopg.connect(url) as batch:
            batch.execute("SELECT 1 FROM origin FOR UPDATE")
            seen = list[int]()
            ended = threading.Timer(1.0, lambda: (seen.append(1), batch.rollback()))
            ended.start()
            erase.erase(store, prepared, dry=False)
            assert seen == [1]
            ended.join()


def test_what_a_drain_counts_meanwhile_is_not_lost(postgres_server: Postgres) -> None:
    """The sums under an erased author domain go to the others, as they are once it has ended."""
    url = upgraded(fresh_schema(postgres_server))
    with closing(Store.open(url)) as store:
        store.apply(Batch("a", "mx1", [(1, spool_row(evaluation("private.example")))]))
        with psycopg.connect(url) as drains:
            drains.execute("UPDATE outcome_sum SET messages = messages + 5")
            drains.execute("UPDATE author_day SET messages = messages + 5")
            ends = threading.Timer(0.7, drains.commit)
            ends.start()
            name = rollups.reversed_name("private.example")
            attempt(store.database, partial(rollups.forget, reversed_name=name))
            ends.join()
        for table in ("outcome_sum WHERE span = 3600", "author_day"):
            sql = f"SELECT sum(messages), max(author_reversed) FROM {table}"
            assert fetch(store.database, sql) == [(6, rollups.OTHERS)]


def test_what_was_erased_does_not_come_back_from_a_restored_backup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither from the copy nor from another host's spool afterwards."""
    with closing(Place(tmp_path, f"sqlite:///{tmp_path}/reports.db")) as place:
        mixed(place)
        kept = [row for _, row in place.spool.kept_batch(0, 100)]
        copy = tmp_path / "copy.db"
        place.ask("store", "backup", str(copy))
        place.ask("store", "erase", "--domain", "private.example")
        place.ask("store", "erase", "--source", "198.51.100.0/24")
        assert place.ask("store", "restore", str(copy)) == 0
        assert "were erased again" in capsys.readouterr().out
        assert place.traces(b"private.example", b"198.51.100.9") == {}
        place.store.apply(Batch("other", "mx2", [(n + 1, row) for n, row in enumerate(kept)]))
        assert place.traces(b"private.example", b"198.51.100.9") == {}
        assert place.store.decisions.count() >= 1


@pytest.mark.parametrize("words", [("--domain", "private.example"), ("--source", "192.0.2.0/30")])
def test_a_report_that_a_restored_backup_has_is_forgotten_again(
    tmp_path: Path, words: tuple[str, str]
) -> None:
    """It was sent before the backup, and names what was erased after it."""
    with closing(Place(tmp_path, f"sqlite:///{tmp_path}/reports.db")) as place:
        place.saw(evaluation("legit.example", source_ip="198.51.100.1"))
        text = b"<source_ip>192.0.2.2</source_ip><envelope_to>private.example</envelope_to>"
        identity = built(place, text)
        assert place.ask("store", "backup", str(tmp_path / "copy.db")) == 0
        assert place.ask("store", "erase", *words) == 0
        assert place.ask("store", "restore", str(tmp_path / "copy.db")) == 0
        with closing(Store.open(place.url)) as store:
            assert store.reports.get(identity) is not None
            assert store.reports.document(identity, "rfc9990") is None


def test_a_tombstone_does_not_tell_what_was_erased(place: Place) -> None:
    """It is a hash under the installation's secret, in the store and in the file."""
    place.saw(evaluation("private.example"))
    place.ask("store", "erase", "--domain", "private.example")
    text = (place.folder / "erased.log").read_text()
    assert "private" not in text
    assert (place.folder / "erased.log").stat().st_mode & 0o777 & ~0o640 == 0
    stone = Tombstones(b"a", ()).of(Target("domain", "private.example"), 1)
    other = Tombstones(b"b", ()).of(Target("domain", "private.example"), 1)
    assert stone.digest != other.digest


def test_a_crash_after_the_tombstone_is_mended_by_asking_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstone comes first: no drain adds anything meanwhile."""
    mixed(place)
    monkeypatch.setattr("dmarc_milter.ledger.erase.Erasure.run", _die)
    assert place.ask("store", "erase", "--domain", "private.example") == 130
    monkeypatch.undo()
    assert place.ask("store", "erase", "--domain", "private.example") == 0
    assert place.traces(b"private.example") == {}


def _die(*_: object) -> dict[str, int]:
    raise KeyboardInterrupt


def test_what_is_typed_wrongly_erases_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage error."""
    for words in (
        ("--domain", "not a name"),
        ("--source", "300.1.1.1"),
        ("--source", "192.0.2.1/8"),
        ("--address", "nobody"),
        ("--address", "nobody@not a name"),
        (),
        ("--domain", "a.example", "--source", "192.0.2.1"),
    ):
        with pytest.raises(SystemExit) as raised:
            place.ask("store", "erase", *words)
        assert raised.value.code == 2
    capsys.readouterr()


def test_it_says_what_it_cannot_reach(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Backups, other hosts, copies of sent mail, logs."""
    place.saw(evaluation("private.example"))
    place.ask("store", "erase", "--domain", "private.example")
    out = capsys.readouterr().out
    for word in ("backups", "copy_to", "other hosts' spools", "logs"):
        assert word in out


def test_a_spool_that_waits_is_erased_without_a_drain(tmp_path: Path) -> None:
    """Rows that the store has never seen."""
    with closing(SpoolFile(tmp_path / "spool.db")) as spool:
        spool.write([spool_row(evaluation("a.example")), spool_row(evaluation("b.example"))])
        assert spool.erase(lambda facts: b"a.example" in facts, lambda _: False, dry=True) == 1
        assert spool.waiting() == 2
        assert spool.erase(lambda facts: b"a.example" in facts, lambda _: False, dry=False) == 1
        assert spool.waiting() == 1
    shutil.copy(tmp_path / "spool.db", tmp_path / "copy.db")
    with closing(SpoolFile(tmp_path / "copy.db", SpoolOptions(access=Access.CHANGE))) as spool:
        assert spool.waiting() == 1

"""`[reporting] copy_to`: what was sent is kept, in a folder or at an address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dmarc_milter.config import ConfigError, parse
from dmarc_milter.core.dmarc.record import ReportUri
from dmarc_milter.ledger.store.deliveries import DeliveryState
from dmarc_milter.ledger.store.store import Store
from fakes.dns_zone import Zone
from fakes.evaluations import RECORD, evaluation
from fakes.report_job import Clock, Job
from fakes.smtp_sink import Sink, smtp_sink


@pytest.fixture
def sink() -> Iterator[Sink]:
    with smtp_sink() as found:
        yield found


@pytest.fixture
def job(tmp_path: Path, sink: Sink) -> Iterator[Job]:
    clock = Clock()
    store = Store.open(f"sqlite:///{tmp_path}/reports.db", clock=clock)
    yield Job(store, Zone({"legit.example": {"MX": [(10, "mx.example")]}}), clock, sink.port)
    store.close()


def states(job: Job) -> set[DeliveryState]:
    found = job.store.reports.find()
    return {one.state for each in found for one in job.store.deliveries.of(each.id)}


def test_a_folder_keeps_each_mail_as_it_was_sent(job: Job, sink: Sink, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    job.set(copy_to=str(folder))
    both = replace(RECORD, rua=(ReportUri("a@legit.example"), ReportUri("b@legit.example")))
    job.see(evaluation(record=both))
    job.run(now=True)
    files = sorted(folder.iterdir())
    assert {file.read_bytes() for file in files} == {mail.message for mail in sink.mails}
    assert len(files) == 2
    assert all(file.suffix == ".eml" and file.stat().st_mode & 0o027 == 0 for file in files)
    assert [file.parent for file in files] == [folder] * 2


def test_an_address_gets_a_copy(job: Job, sink: Sink) -> None:
    """Its bounces are nobody's failure: the envelope sender has no tag."""
    job.set(copy_to="archive@mx.example")
    job.see(evaluation())
    job.run(now=True)
    first, copy = sink.mails
    assert (first.recipient, copy.recipient) == ("agg@legit.example", "archive@mx.example")
    assert first.message == copy.message
    assert copy.sender == "dmarc@mx.example"


def test_only_what_was_sent_is_kept(job: Job, sink: Sink, tmp_path: Path) -> None:
    job.set(copy_to=str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    sink.answer = lambda stage, _: "450 later" if stage == "rcpt" else ""
    job.see(evaluation())
    job.run(now=True)
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.mark.parametrize("target", ["/nowhere/at/all", "full@mx.example"])
def test_a_copy_that_cannot_be_kept_changes_nothing_of_the_report(
    job: Job, sink: Sink, target: str
) -> None:
    job.set(copy_to=target)
    sink.answer = lambda stage, who: (
        "552 full" if (stage, who) == ("rcpt", "full@mx.example") else ""
    )
    job.see(evaluation())
    job.run(now=True)
    assert states(job) == {DeliveryState.SENT}


@pytest.mark.parametrize("text", ["copies", "a@", "no address", "./x"])
def test_what_is_neither_address_nor_folder_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="copy_to"):
        parse(f'[reporting]\ncopy_to = "{text}"\n')

"""Reports that arrive: real mail through Postfix, reports through Postfix into a mailbox, read by a
program that knows nothing of ours."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from dmarc_milter.ledger.store.reports import ReportState
from dmarc_milter.ledger.store.store import Store
from fakes.daemon import ROOT, Daemon, free_port, toml
from fakes.dns_server import DnsServer
from live.attached import daemon, postfix_settings
from live.place import eventually, private_folder, require_live
from live.postfix import Postfix, private_postfix
from live.scenarios import SENDER, STRANGER, letter, signed, zone

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

SCHEMAS = {"rfc9990": "rfc9990-dmarc-2.0.xsd", "rfc7489": "rfc7489-derived-no-namespace.xsd"}
DOMAINS = ("sender.example", "none.example", "quarantine.example", "reject.example")
PARSEDMARC = Path(sys.executable).with_name("parsedmarc")

Figures = Counter[tuple[str, str, str, str]]
"""Messages by (policy domain, source address, From domain, disposition)."""


def world() -> dict[str, dict[str, Any]]:
    """The senders of the demo, whose reports go to mailboxes here, which asked for them."""
    names = {name: dict(records) for name, records in zone().items()}
    for domain in DOMAINS:
        [record] = names[f"_dmarc.{domain}"]["TXT"]
        user = domain.partition(".")[0]
        asked = f"rua=mailto:agg-{user}@test.example; ruf=mailto:ruf-{user}@test.example; fo=1"
        names[f"_dmarc.{domain}"] = {"TXT": [f"{record}; {asked}"]}
        names[f"{domain}._report._dmarc.test.example"] = {"TXT": ["v=DMARC1"]}
    names["test.example"] = {"MX": [(10, "mx.test.example")]}
    return names


@dataclass(frozen=True, slots=True)
class Site:
    mta: Postfix
    daemon: Daemon
    dns: DnsServer
    folder: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.daemon.folder}/reports.db"

    def report(self, *arguments: str, form: str = "rfc9990") -> str:
        """`dmarc-milter report ...`; its standard output."""
        config = self.folder / f"{form}.toml"
        settings = reporting(self.mta.port) | {"format": form}
        tables = {"store": {"url": self.url}, "dns": {"nameservers": [self.dns.nameserver]}}
        config.write_text(toml(tables | {"reporting": settings}))
        return self._run(["report", *arguments, "--config", str(config)])

    def drain(self) -> None:
        """Everything that was answered is in the store: what only asks leaves that as it is."""
        config = self.folder / "rfc9990.toml"
        if not config.exists():
            self.report("list")
        self._run(["store", "drain", "--config", str(config)])

    def _run(self, words: list[str]) -> str:
        command = [sys.executable, "-m", "dmarc_milter", *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "milter")}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def reporting(port: int) -> dict[str, Any]:
    return {
        "org_name": "Test Receiver <&>",
        "email": "dmarc@mx.test.example",
        "smtp": f"127.0.0.1:{port}",
        "failure_reports": True,
    }


@contextmanager
def running() -> Iterator[Site]:
    require_live()
    socket = f"inet:{free_port()}@127.0.0.1"
    lines = postfix_settings(socket)
    with (
        private_folder("reports") as folder,
        DnsServer(world()) as dns,
        daemon(dns, socket, {"reporting": reporting(1)}) as daemon_,
        private_postfix(milters=lines.pop("smtpd_milters"), extra=lines) as postfix,
    ):
        yield Site(postfix, daemon_, dns, folder)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running() as found:
        yield found


def mail(site: Site, rounds: int) -> Figures:
    """So many rounds of mail of every kind; what the reports must say of it."""
    expected: Figures = Counter()
    good = letter("Alice <alice@sender.example>", subject="Good")
    for number in range(rounds):
        for author, client, message, disposition in (
            ("sender.example", SENDER, signed(good), "pass"),
            ("sender.example", SENDER, good, "pass"),
            (
                "sub.sender.example",
                STRANGER,
                letter("x@sub.sender.example", subject="Spoof"),
                "reject",
            ),
            ("none.example", STRANGER, letter("x@none.example", subject="Spoof"), "none"),
            (
                "quarantine.example",
                STRANGER,
                letter("x@quarantine.example", subject="Spoof"),
                "quarantine",
            ),
            ("reject.example", STRANGER, letter("x@reject.example", subject="Spoof"), "reject"),
        ):
            sender = "alice@sender.example" if client is SENDER else ""
            reply = site.mta.send(message, f"user{number}", client=client, mail_from=sender)
            assert reply.code == (550 if disposition == "reject" else 250), reply
            domain = author.removeprefix("sub.")
            expected[domain, client.address, author, disposition] += 1
    return expected


def ledger(site: Site) -> Figures:
    """What the store holds for reports not sent yet."""
    site.drain()
    store = Store.open(site.url)
    found: Figures = Counter()
    for report in store.reports.find([ReportState.DUE]):
        for row, count in store.reports.rows(report.id):
            found[report.policy_domain, row.source_ip, row.header_from, row.disposition] += count
    store.close()
    return found


def arrived(site: Site, kind: str, number: int) -> list[bytes]:
    """The mails in the mailboxes of that kind, once there are so many."""

    def found() -> list[bytes]:
        users = [f"{kind}-{domain.partition('.')[0]}" for domain in DOMAINS]
        return [message for user in users for message in site.mta.mailbox(user)]

    eventually(lambda: len(found()) >= number, what=f"{number} reports\n{site.mta.log()[-3000:]}")
    return found()


def by_parsedmarc(messages: list[bytes], folder: Path) -> Mapping[str, list[Any]]:
    """What a stranger reads in them: parsedmarc, without network."""
    folder.mkdir()
    for number, message in enumerate(messages):
        (folder / f"{number}.eml").write_bytes(message)
    command = [PARSEDMARC, "--offline", *sorted(map(str, folder.glob("*.eml")))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    read: dict[str, list[Any]] = json.loads(done.stdout[done.stdout.index("{") :])
    return read


def figures(reports: list[Any]) -> Figures:
    found: Figures = Counter()
    for report in reports:
        for record in report["records"]:
            who = record["identifiers"]["header_from"]
            disposition = record["policy_evaluated"]["disposition"]
            found[
                report["policy_published"]["domain"],
                record["source"]["ip_address"],
                who,
                disposition,
            ] += record["count"]
    return found


def document(message: bytes) -> bytes:
    parsed = email.message_from_bytes(message, policy=email.policy.SMTP)
    [attachment] = parsed.iter_attachments()
    return gzip.decompress(attachment.get_content())


@pytest.mark.skipif(not PARSEDMARC.exists(), reason="parsedmarc is not installed: make test does")
@pytest.mark.parametrize("form", ["rfc9990", "rfc7489"])
def test_reports_agree_with_the_ledger_count_for_count(
    site: Site, form: str, tmp_path: Path
) -> None:
    """Sent at once, through Postfix, read by somebody else's program; valid by the official
    schema."""
    before = len(arrived(site, "agg", 0))
    expected = mail(site, 3)
    assert ledger(site) == expected
    previewed = [
        json.loads(line) for line in site.report("preview", "--json", form=form).splitlines()
    ]
    assert sum(each["messages"] for each in previewed) == expected.total()
    site.report("send", "--now", form=form)
    found = arrived(site, "agg", before + len(DOMAINS))
    messages = [each for each in found if (b"urn:ietf" in document(each)) == (form == "rfc9990")]
    assert len(messages) == len(DOMAINS)
    schema = etree.XMLSchema(etree.parse(ROOT / "tests/vectors/xsd" / SCHEMAS[form]))
    for each in messages:
        schema.assertValid(etree.fromstring(document(each)))
    read = by_parsedmarc(messages, tmp_path / "mails")["aggregate_reports"]
    if form == "rfc7489":  # which has no word for a pass under an enforcing policy
        expected = Counter(
            {
                (*key[:3], "none" if key[3] == "pass" else key[3]): count
                for key, count in expected.items()
            }
        )
    assert figures(read) == expected
    listed = {
        json.loads(line)["report_id"]: json.loads(line)
        for line in site.report("list", "--json", "--state", "sent").splitlines()
    }
    for report in read:
        ours = listed[report["report_metadata"]["report_id"]]
        assert ours["messages"] == sum(each["count"] for each in report["records"])
        assert ours["policy_domain"] == report["policy_published"]["domain"]
        assert {each["state"] for each in ours["destinations"]} == {"sent"}
        assert report["report_metadata"]["org_name"] == "Test Receiver <&>"


@pytest.mark.skipif(not PARSEDMARC.exists(), reason="parsedmarc is not installed: make test does")
def test_failure_reports_arrive_and_tell_nothing_private(site: Site, tmp_path: Path) -> None:
    """RFC 9991: one for each policy domain, with what was gathered; readable by somebody else's
    program."""
    messages = arrived(site, "ruf", 1)
    assert all(b"alice@" not in each and b"Subject: Spoof" not in each for each in messages)
    read = by_parsedmarc(messages, tmp_path / "mails")["failure_reports"]
    assert {each["reported_domain"] for each in read} <= {*DOMAINS, "sub.sender.example"}
    assert len(read) == len(messages)


def test_report_show_prints_what_the_mail_says(site: Site, tmp_path: Path) -> None:
    """For people: tables of a mail file, of its attachment, and of a report by its id."""
    mails = arrived(site, "agg", 1)
    (tmp_path / "report.eml").write_bytes(mails[0])
    (tmp_path / "report.xml").write_bytes(document(mails[0]))
    (tmp_path / "report.xml.gz").write_bytes(gzip.compress(document(mails[0])))
    found = re.search(rb"Report-ID: ([0-9a-f]{32})", mails[0])
    assert found is not None
    shown = [
        site.report("show", str(tmp_path / f"report.{end}")) for end in ("eml", "xml", "xml.gz")
    ]
    assert len(set(shown)) == 1
    ours = site.report("show", found[1].decode())
    assert ours.startswith(shown[0])
    assert "agg-" in ours.removeprefix(shown[0]), "and where it went"
    assert "Test Receiver <&>" in shown[0]
    assert "203.0.113" in shown[0]

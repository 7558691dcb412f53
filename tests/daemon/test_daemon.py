"""The whole daemon: real evaluation, DNS, spool, log and counters, by the milter protocol."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from dmarc_milter.core.stored import decode
from fakes.daemon import Daemon, wait_for
from fakes.dns_server import DnsServer
from fakes.milter_client import Answer, Gone, MilterClient
from fakes.signer import Signer, header_fields
from fakes.soak import LONG, chance, kills

pytestmark = pytest.mark.timeout(1800 if LONG else 180)

LEGIT = Signer("legit.example")
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    zone = {
        "legit.example": {"TXT": ["v=spf1 ip4:198.51.100.10 -all"]},
        "_dmarc.legit.example": {"TXT": ["v=DMARC1; p=reject"]},
        LEGIT.key_name: {"TXT": [LEGIT.record()]},
    }
    with DnsServer(zone) as server:
        yield server


@pytest.fixture
def start(tmp_path: Path, dns: DnsServer) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons that ask the scripted DNS; they end with the test."""
    with contextlib.ExitStack() as stack:

        def started(tables: dict[str, dict[str, object]] | None = None) -> Daemon:
            return stack.enter_context(
                Daemon(tmp_path, {"dns": {"nameservers": [dns.nameserver]}} | (tables or {}))
            )

        yield started


def opened(daemon: Daemon, address: str = "198.51.100.10", **macros: str) -> MilterClient:
    mta = daemon.client()
    mta.connect("mx.legit.example", address, macros=macros)
    mta.helo("mx.legit.example")
    return mta


def good(
    mta: MilterClient, message_id: str = "m@legit.example", body: bytes = b"Hello\r\n"
) -> Answer:
    """A message that passes by SPF; its Message-ID is unique where it matters."""
    fields = [("From", " <admin@legit.example>"), ("Message-ID", f" <{message_id}>")]
    return mta.message(fields, body, mail_from="<admin@legit.example>", queue_id="4GOOD")


def results(answer: Answer) -> str:
    return " ".join(answer.values("Authentication-Results"))


def test_workers_are_scheduled_as_batch(start: Callable[..., Daemon]) -> None:
    """A woken thread displaces no running one; the supervisor, which must act at once, stays as it
    was started."""
    daemon = start({"milter": {"workers": 2}})
    assert wait_for(lambda: len(daemon.workers()) == 2)
    assert wait_for(
        lambda: {os.sched_getscheduler(pid) for pid in daemon.workers()} == {os.SCHED_BATCH}
    )
    assert daemon.process
    assert os.sched_getscheduler(daemon.process.pid) == os.sched_getscheduler(0)


# -- what a message gets ---------------------------------------------------------------------------


def test_good_mail_is_marked_and_spoofed_mail_refused(start: Callable[..., Daemon]) -> None:
    """The main job in two messages on one connection, recorded and logged with the queue id
    first."""
    daemon = start()
    assert "dmarc=pass" in results(good(opened(daemon)))
    spoof = opened(daemon, "192.0.2.66").message(
        [("From", " <admin@legit.example>")], queue_id="4SPOOF"
    )
    assert spoof.code == 550
    assert spoof.text.startswith("550 5.7.1 ")
    assert wait_for(lambda: daemon.spool_rows() == 2)
    assert wait_for(lambda: len(daemon.events("message")) == 2)
    assert [line.split(" ")[0] for line in daemon.events("message")] == ["id=4GOOD", "id=4SPOOF"]
    assert not daemon.events("step")


def test_at_the_level_debug_each_decision_is_told_as_why_would(
    start: Callable[..., Daemon],
) -> None:
    daemon = start({"log": {"level": "debug"}})
    good(opened(daemon))
    assert wait_for(
        lambda: any("DMARC for legit.example: pass" in line for line in daemon.events("step"))
    )
    told = daemon.events("step")
    form = re.compile(r"id=4GOOD event=step level=debug time=\S+ text=")
    assert all(form.match(line) for line in told)
    assert any("SPF: pass for legit.example" in line for line in told)


def test_a_signed_body_is_hashed_as_it_streams(start: Callable[..., Daemon]) -> None:
    """DKIM passes whatever the chunks are, a last piece in the end-of-message packet included."""
    raw = LEGIT.sign(
        b"From: <admin@legit.example>\r\nSubject: x\r\n\r\n" + b"line of text \t here\r\n" * 5000
    )
    fields, body = header_fields(raw)
    mta = opened(start(), "192.0.2.66")
    for chunk in (100, 4096, 65535):
        assert "dkim=pass" in results(mta.message(fields, body, chunk=chunk))
    mta.mail("<any@attack.example>")
    mta.rcpt("<v@example.com>")
    for name, value in fields:
        mta.header(name, value)
    mta.eoh()
    mta.body(body[:-1000])
    assert "dkim=pass" in results(mta.eom(body[-1000:]))


@pytest.mark.parametrize("leading", [True, False])
def test_simple_canonicalization_survives_the_mta(
    start: Callable[..., Daemon], leading: bool
) -> None:
    """HDR-09: folds come as LF; without leading spaces negotiated one space stood after the
    colon."""
    raw = LEGIT.sign(
        b"From: <admin@legit.example>\r\nSubject: folded\r\n here\r\n\r\nbody\r\n",
        c="simple/simple",
    )
    fields, body = header_fields(raw)
    daemon = start()
    with daemon.client(negotiated=False) as mta:
        mta.negotiate(steps=0x1FFFFF if leading else 0x1FFFFF & ~(1 << 20))
        mta.connect("x.example", "192.0.2.66")
        mta.helo("x.example")
        assert "dkim=pass" in results(
            mta.message([(name, value.replace(b"\r\n", b"\n")) for name, value in fields], body)
        )


@pytest.mark.parametrize(
    ("address", "connect", "mail"),
    [
        ("127.0.0.1", {}, {}),
        ("192.0.2.66", {"{daemon_name}": "MSA"}, {}),
        ("192.0.2.66", {}, {"{auth_authen}": "alice"}),
    ],
)
def test_exempt_mail_is_stripped_and_not_marked(
    start: Callable[..., Daemon], address: str, connect: dict[str, str], mail: dict[str, str]
) -> None:
    """Authenticated clients, submission daemons and trusted networks: nothing evaluated, nothing
    recorded, forged fields gone."""
    daemon = start(
        {
            "authentication": {
                "trusted_networks": ["127.0.0.0/8"],
                "sendmail_daemons_authenticate": "yes",
            }
        }
    )
    fields = [
        ("Authentication-Results", " mx.example.com; dmarc=pass"),
        ("From", " <a@legit.example>"),
        ("X-DMARC-Quarantine", " no"),
    ]
    answer = opened(daemon, address, **connect).message(
        [*fields, ("Authentication-Results", " other.example; spf=pass")], macros=mail
    )
    assert answer.code == 250
    assert [name for name, _ in answer.headers] == [b"From", b"Authentication-Results"]
    assert results(answer) == " other.example; spf=pass"
    assert wait_for(lambda: bool(daemon.events("exempt")))
    assert daemon.events("message") == []


def test_fields_beyond_the_limits_are_still_removed(start: Callable[..., Daemon]) -> None:
    """docs/design.md: counted and removed; DKIM cannot be judged then."""
    fields, body = header_fields(LEGIT.sign(b"From: <admin@legit.example>\r\n\r\nbody\r\n"))
    forged = ("Authentication-Results", " mx.example.com; dmarc=pass")
    answer = opened(start()).message(
        [
            forged,
            *fields,
            *[("X-Filler", " x")] * 1200,
            forged,
            ("Authentication-Results", " other.example; spf=pass"),
            forged,
        ],
        body,
        mail_from="<admin@legit.example>",
    )
    assert answer.code == 250
    own, other = answer.values("Authentication-Results")
    assert "dkim=permerror" in own
    assert other == " other.example; spf=pass"


def test_hostile_helo_and_sender_stay_in_one_log_line(start: Callable[..., Daemon]) -> None:
    """LOG-01, I6."""
    daemon = start()
    mta = opened(daemon)
    mta.helo(b"x\r\nevent=forged \x1b[31m\xff" + b"y" * 2000)
    answer = mta.message(
        [("From", " <a@legit.example>"), ("Message-ID", " <a\r\nb>")],
        mail_from=b"<a\xff\x1b@b\x07.example>",
    )
    assert answer.code == 550
    assert wait_for(lambda: bool(daemon.events("message")))
    for line in daemon.log.read_bytes().split(b"\n"):
        assert line.isascii()
        assert line.decode().isprintable()
        assert len(line) <= 1024
    assert not any(line.startswith("event=forged") for line in daemon.lines())


# -- failures --------------------------------------------------------------------------------------


def test_a_spool_that_fails_delays_no_mail(start: Callable[..., Daemon]) -> None:
    """docs/design.md: a message waits at most a second for its record; it is answered, logged and
    counted as unrecorded."""
    daemon = start({"milter": {"workers": 1}})
    mta = opened(daemon)
    assert good(mta).code == 250
    with contextlib.closing(sqlite3.connect(daemon.spool, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        begin = time.monotonic()
        assert "dmarc=pass" in results(good(mta))
        assert time.monotonic() - begin < 3
        assert wait_for(lambda: "unrecorded=yes" in daemon.text())


def test_dns_that_does_not_answer_is_a_temporary_error(start: Callable[..., Daemon]) -> None:
    """Never a refusal; the budget bounds the wait."""
    with DnsServer({}) as silent:
        silent.behaviour = "silent"
        daemon = start({"dns": {"nameservers": [silent.nameserver], "timeout": 0.5, "budget": 1.0}})
        answer = good(opened(daemon))
        assert answer.code == 250
        assert "dmarc=temperror" in results(answer)


def answered_ids(daemon: Daemon) -> Counter[str]:
    """Message-IDs in the spool."""
    with contextlib.closing(sqlite3.connect(daemon.spool)) as connection:
        return Counter(
            decode(facts).message_id for (facts,) in connection.execute("SELECT facts FROM spool")
        )


class Load:
    """Clients that send until stopped, and know what was answered and how often each message was
    tried."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.answered: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(6)]

    def __enter__(self) -> Load:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()

    def _send(self, client: int) -> None:
        number, mta = 0, None
        while not self._stop.is_set():
            number += 1
            message_id = f"{client}.{number}@legit.example"
            while not self.answered[message_id]:  # as an MTA's client does after 4xx
                try:
                    mta = mta or self._open()
                    self.tried[message_id] += 1
                    answer = good(mta, message_id)
                except (Gone, ConnectionError):
                    mta = self._closed(mta)
                    continue
                # One that chance killed twice in evaluation counts as poison, and is passed unread.
                poison = self.tried[message_id] > 2 and "dmarc=temperror" in results(answer)
                if answer.code != 250 or ("dmarc=pass" not in results(answer) and not poison):
                    self.wrong.append(f"{answer.code} {answer.text} {results(answer)}")
                self.answered[message_id] += 1
        self._closed(mta)

    def _open(self) -> MilterClient:
        mta = MilterClient(self.daemon.address)
        try:
            mta.negotiate()
            mta.connect("mx.legit.example", "198.51.100.10")
            mta.helo("mx.legit.example")
        except BaseException:
            mta.close()
            raise
        return mta

    @staticmethod
    def _closed(mta: MilterClient | None) -> None:
        if mta is not None:
            mta.close()


def kill_workers(daemon: Daemon, count: int, rng: Random) -> None:
    for _ in range(count):
        time.sleep(rng.uniform(0.02, 0.4))
        if workers := daemon.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)


@pytest.mark.soak
def test_kills_under_load_lose_no_answered_message(start: Callable[..., Daemon]) -> None:
    """FLT-01: every answered message stands in the spool exactly once; a lost answer's attempt may
    stand there besides."""
    daemon = start()
    rng = chance("kills under load")
    with Load(daemon) as load:
        kill_workers(daemon, kills(15), rng)
        time.sleep(0.5)
    assert load.wrong == []
    assert sum(load.answered.values()) > 50
    rows = answered_ids(daemon)
    for message_id, tries in load.tried.items():
        lost = tries - load.answered[message_id]
        assert load.answered[message_id] <= rows[message_id] <= load.answered[message_id] + lost
    assert len(daemon.events("worker_died")) >= 1


def test_reloads_under_load_answer_every_message_once(start: Callable[..., Daemon]) -> None:
    """What the driver saw is what spool and log say, over reloads too: every message once."""
    daemon = start()
    with Load(daemon) as load:
        for number in range(2):
            daemon.signal(signal.SIGHUP)
            assert daemon.logged("ready", number + 2)
        time.sleep(0.3)
    assert load.wrong == []
    assert load.tried == load.answered
    assert answered_ids(daemon) == load.answered
    assert wait_for(lambda: len(daemon.events("message")) == sum(load.answered.values()))


# -- memory ----------------------------------------------------------------------------------------


def proportional_memory(daemon: Daemon) -> int:
    """PSS of all our processes, octets."""
    total = 0
    assert daemon.process is not None
    for pid in (daemon.process.pid, *daemon.workers()):
        found = re.search(
            r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE
        )
        total += int(found[1]) * 1024 if found else 0
    return total


def test_large_messages_at_once_do_not_grow_memory(start: Callable[..., Daemon]) -> None:
    """16 messages of 20 MB in flight: under 32 MB more, since the body is hashed while it streams
    and never kept."""
    daemon = start()
    fields, _ = header_fields(
        LEGIT.sign(b"From: <admin@legit.example>\r\nSubject: x\r\n\r\nbody\r\n")
    )
    for _ in range(20):
        good(opened(daemon))
    before = proportional_memory(daemon)
    peak = 0
    chunk = (b"x" * 76 + b"\r\n") * 800
    barrier = threading.Barrier(17)
    answers: list[Answer] = []

    def send() -> None:
        mta = opened(daemon, "192.0.2.66")
        mta.mail("<any@attack.example>")
        mta.rcpt("<v@example.com>")
        for name, value in fields:
            mta.header(name, value)
        mta.eoh()
        for _ in range(10 * MEGABYTE // len(chunk)):
            mta.body(chunk)
        barrier.wait()
        for _ in range(10 * MEGABYTE // len(chunk)):
            mta.body(chunk)
        answers.append(mta.eom())

    threads = [threading.Thread(target=send) for _ in range(16)]
    for each in threads:
        each.start()
    barrier.wait()
    while any(each.is_alive() for each in threads):
        peak = max(peak, proportional_memory(daemon))
        time.sleep(0.05)
    for each in threads:
        each.join()
    assert [each.code for each in answers] == [550] * 16
    assert peak - before < 32 * MEGABYTE


# -- where the ledger lies -------------------------------------------------------------------------


def test_a_spool_that_cannot_be_made_stops_the_start_in_one_line(tmp_path: Path) -> None:
    """Without it nothing would be recorded: said before the first message, with the remedy."""
    (tmp_path / "file").touch()
    daemon = Daemon(tmp_path, {"store": {"url": f"sqlite:///{tmp_path}/file/reports.db"}})
    assert daemon.spawn().wait(20) == 1
    (line,) = daemon.lines()
    assert ' text="spool: ' in line
    assert line.count("[store] must be where this account may write") == 1


def test_a_store_that_cannot_be_made_is_said_at_the_start_and_delays_no_mail(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    """docs/design.md, What a message gets: a store that is down never delays mail. A reload to a
    place for the spool that is none is refused."""
    (tmp_path / "file").touch()
    store = {"url": f"sqlite:///{tmp_path}/file/reports.db", "spool": f"{tmp_path}/spool.db"}
    daemon = start({"store": store})
    (line,) = daemon.events("store")
    assert "level=warning" in line
    assert "is not a directory: messages wait in the spool" in line
    assert "dmarc=pass" in results(good(opened(daemon)))
    daemon.configure({"store": store | {"spool": f"{tmp_path}/file/spool.db"}})
    daemon.signal(signal.SIGHUP)
    assert wait_for(lambda: daemon.events("reload_failed"))
    assert "spool: " in daemon.events("reload_failed")[0]
    assert "dmarc=pass" in results(good(opened(daemon)))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_during_the_start_is_taken_when_it_is_done(
    tmp_path: Path, dns: DnsServer, number: signal.Signals
) -> None:
    """FLT-02, FLT-03: from the moment that the pid file tells whom to signal; nothing is left
    behind either."""
    pid = tmp_path / "pid"
    command = ("-m", "dmarc_milter", "serve", "--no-jobs", "--pid-file", str(pid), "--config")
    daemon = Daemon(
        tmp_path,
        {"dns": {"nameservers": [dns.nameserver]}, "milter": {"socket": f"unix:{tmp_path}/s"}},
        command=command,
    )
    try:
        process = daemon.spawn()
        assert wait_for(lambda: pid.exists() and pid.stat().st_size)
        daemon.signal(number)
        if number == signal.SIGHUP:
            assert wait_for(lambda: daemon.events("ready") and daemon.events("reload"), 30)
            daemon.signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not pid.exists()
        assert not (tmp_path / "s").exists()
    finally:
        daemon.stop()


def test_the_pid_file_is_there_as_long_as_the_daemon(tmp_path: Path, dns: DnsServer) -> None:
    pid = tmp_path / "pid"
    command = ("-m", "dmarc_milter", "serve", "--no-jobs", "--pid-file", str(pid), "--config")
    with Daemon(tmp_path, {"dns": {"nameservers": [dns.nameserver]}}, command=command) as daemon:
        assert daemon.process is not None
        assert pid.read_text() == f"{daemon.process.pid}\n"
        os.kill(daemon.workers()[0], signal.SIGKILL)
        assert wait_for(lambda: len(daemon.workers()) == 2)
        second = Daemon(tmp_path, {"dns": {"nameservers": [dns.nameserver]}}, command=command)
        assert second.spawn().wait(20) == 2
        # The first writes into the same log.
        assert f"dmarc-milter: --pid-file {pid}: another daemon has it" in second.lines()
        assert pid.read_text() == f"{daemon.process.pid}\n"
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(20) == 0
    assert not pid.exists()

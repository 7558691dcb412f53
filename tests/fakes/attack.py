"""The attack catalogue's stage: one scripted DNS, daemons by configuration, messages, verdicts, and
what must hold after every case.

    case = Case("FRM-09", mail(b"a@attack.example@legit.example"), malformed())
    with Stage(folder) as stage:
        stage.check(case)

The names, the default session and the verdict codes are those of a receiver `mx.example.com` under
attack by `attack.example`, whose mail claims to be from `legit.example` (p=reject).
"""

from __future__ import annotations

import re
import threading
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from dmarc_milter.dns.probe import NOBODY, TLD
from fakes import strict_authres
from fakes.daemon import Daemon
from fakes.dns_server import DnsServer, Spec
from fakes.milter_client import Answer, MilterClient
from fakes.signer import Signer, header_fields

AID = b"mx.example.com"
LEGIT_SIGNER, ATTACK_SIGNER, PROBE_SIGNER = (
    Signer("legit.example"),
    Signer("attack.example"),
    Signer("probe.tld"),
)
MAX_QUERIES = 160
STALL = 0.5
"""Seconds that another session may wait, whatever the case does."""
MORE_MEMORY = 64 * 1024 * 1024
MAX_DAEMONS = 9
"""Daemons that run side by side."""
MAX_STALLS = 2
"""Seconds that the disk may take from one daemon's spool."""

ZONE: dict[str, Spec] = {
    "legit.example": {"TXT": ["v=spf1 ip4:198.51.100.10 -all"], "A": ["198.51.100.10"]},
    "mail.legit.example": {"TXT": ["v=spf1 ip4:198.51.100.10 -all"], "A": ["198.51.100.10"]},
    "_dmarc.legit.example": {
        "TXT": ["v=DMARC1; p=reject; sp=reject; rua=mailto:agg@legit.example"]
    },
    LEGIT_SIGNER.key_name: {"TXT": [LEGIT_SIGNER.record()]},
    "attack.example": {"TXT": ["v=spf1 ip4:192.0.2.66 -all"], "A": ["192.0.2.66"]},
    "_dmarc.attack.example": {"TXT": ["v=DMARC1; p=none"]},
    ATTACK_SIGNER.key_name: {"TXT": [ATTACK_SIGNER.record()]},
    "strict.example": {"TXT": ["v=spf1 -all"]},
    "_dmarc.strict.example": {"TXT": ["v=DMARC1; p=reject; adkim=s; aspf=s"]},
    "probe.tld": {"TXT": ["v=spf1 -all"]},
    "_dmarc.probe.tld": {"TXT": ["v=DMARC1; p=reject"]},
    PROBE_SIGNER.key_name: {"TXT": [PROBE_SIGNER.record()]},
}

Field = tuple[bytes, bytes]
Zone = Mapping[str, Spec]
NAMES = re.compile(r"attack|legit|evil|example|test", re.IGNORECASE)


# --- messages


@dataclass(frozen=True)
class Mail:
    """One message with its envelope. Values keep their leading space; folds are CRLF here and LF on
    the way to the milter."""

    fields: tuple[Field, ...]
    body: bytes = b"Hello.\r\n"
    mail_from: bytes = b"<any@attack.example>"
    helo: bytes = b"mx.attack.example"
    ip: str | None = "192.0.2.66"
    hostname: bytes = b"mx.attack.example"
    rcpt: tuple[bytes, ...] = (b"<v@example.com>",)
    parameters: tuple[bytes, ...] = ()
    family: str = ""
    macros: Mapping[str, str] = field(default_factory=dict)
    mail_macros: Mapping[str, str] = field(default_factory=dict)
    chunk: int = 65535
    fold: bytes = b"\n"
    """How folds reach the milter."""

    @property
    def raw(self) -> bytes:
        return (
            b"".join(name + b":" + value + b"\r\n" for name, value in self.fields)
            + b"\r\n"
            + self.body
        )

    def of(self, raw: bytes) -> Mail:
        """The same envelope with this message."""
        fields, body = header_fields(raw)
        return replace(self, fields=tuple((name, value) for name, value in fields), body=body)

    def top(self, *fields: Field) -> Mail:
        """More fields above all."""
        return replace(self, fields=(*fields, *self.fields))

    def signed(self, signer: Signer, **how: Any) -> Mail:
        """With a DKIM-Signature on top; `how` as for Signer.field."""
        return self.top(signer.field(self.raw, **how))


def mail(*from_values: bytes, extra: Sequence[Field] = (), **envelope: Any) -> Mail:
    """A message with these From fields (none: no From at all) above Date, Message-ID, To and
    Subject; `extra` on top."""
    authors = [(b"From", b" " + value) for value in from_values]
    basis = [
        (b"Date", b" Thu, 1 Oct 2026 10:00:00 +0000"),
        (b"Message-ID", b" <1@mx.attack.example>"),
        (b"To", b" <v@example.com>"),
    ]
    return Mail((*extra, *authors, *basis, (b"Subject", b" Hello")), **envelope)


def spoof(**envelope: Any) -> Mail:
    """The plain attack: From legit.example by attack.example."""
    return mail(b"<admin@legit.example>", **envelope)


def good() -> Mail:
    """A message that LEGIT_SIGNER signed, from a client that SPF does not know."""
    return mail(
        b"<admin@legit.example>",
        mail_from=b"<bounce@legit.example>",
        helo=b"mail.legit.example",
        ip="203.0.113.9",
    ).signed(LEGIT_SIGNER)


def probe() -> Mail:
    """Another session's message: its questions are told apart by their names."""
    return mail(
        b"<a@probe.tld>", mail_from=b"<a@probe.tld>", helo=b"mx.probe.tld", ip="203.0.113.7"
    ).signed(PROBE_SIGNER)


# --- what must come out


@dataclass(frozen=True)
class Verdict:
    """What enforcement, and monitor mode, must answer."""

    code: int = 250
    result: str = "fail"
    """dmarc= in monitor mode, and in enforcement where the message is delivered."""
    domain: str = "legit.example"
    """The policy domain in a refusal; "" where it does not matter."""
    words: tuple[str, ...] = ()
    """What the unfolded field holds besides."""
    quarantined: bool = False
    known: bool = True
    """With temperror: a record that answered asks for quarantine or reject; else it is delivered by
    default."""


def refused(domain: str = "legit.example", *words: str) -> Verdict:
    """Refused for that domain's policy."""
    return Verdict(550, "fail", domain, words)


def malformed(
    domain: str = "legit.example", *, code: int | None = None, quarantined: bool = False
) -> Verdict:
    """Malformed From. `domain`: whose p=reject some reader could see; "" nobody's, so that only a
    mark is left."""
    return Verdict(
        (550 if domain else 250) if code is None else code,
        "permerror",
        domain,
        quarantined=quarantined,
    )


def delivered(*words: str, result: str = "pass") -> Verdict:
    """Delivered, and these words stand in our field."""
    return Verdict(250, result, "", words)


def deferred(*words: str) -> Verdict:
    """Not to be judged for trouble in the DNS, under a policy that is known: 451, or delivered
    where so configured."""
    return Verdict(451, "temperror", "", words)


def unanswered(*words: str) -> Verdict:
    """The same where no record at all answered: delivered as dmarc=temperror, or 451 where so
    configured."""
    return Verdict(451, "temperror", "", words, known=False)


NO_POLICY = Verdict(250, "none", "")


@dataclass(frozen=True)
class Case:
    """One row, or one of its inputs."""

    row: str
    mail: Mail
    verdict: Verdict
    zone: Zone = field(default_factory=dict)
    """Names over ZONE's; an empty spec removes the name."""
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Configuration besides the stage's own."""
    variants: bool = True
    """Whether other spellings of the header are the same message (not so where simple
    canonicalization signs them)."""
    kept: tuple[bytes, ...] | None = None
    """The Authentication-Results values that must be left below ours; None: those that do not claim
    AID."""
    queries: int = MAX_QUERIES
    seconds: float = 2.0
    """How long the answer may take."""
    behaviour: str = ""
    """Of the whole DNS but the probe's names."""
    note: str = ""

    def __str__(self) -> str:
        return f"{self.row} {self.note}".rstrip()


def ids(case: object) -> str | None:
    """A case's name in test ids."""
    return re.sub(r"[^A-Za-z0-9 .,=-]", "", str(case)) if isinstance(case, Case) else None


def cases(row: str, verdict: Verdict, *mails: Mail, **rest: Any) -> list[Case]:
    """The same row and verdict for several messages."""
    return [
        Case(row, each, verdict, note=str(number), **rest) for number, each in enumerate(mails, 1)
    ]


# --- the stage


@dataclass
class Heard:
    """One answer with the field that we wrote."""

    answer: Answer
    ours: strict_authres.Field | None
    seconds: float
    queries: int = 0
    mail: Mail | None = None

    @property
    def dmarc(self) -> strict_authres.Result:
        assert self.ours is not None
        return self.ours.one("dmarc")

    def show(self) -> str:
        top = [
            value
            for name, value in self.answer.headers
            if name.lower() == b"authentication-results"
        ]
        return f"{self.answer.code} {self.answer.text!r} {top[:2]!r}"


class RunningDaemon:
    """One daemon with one worker, its connections and its log."""

    def __init__(self, folder: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.daemon = Daemon(folder, tables)
        self.daemon.start()
        self._read = 0
        self.pid = self.daemon.workers()[0]
        self.serial = 0
        self.stalls = 0
        """How often the disk let the spool wait for a second, which is the machine's doing; a
        message that can do it does it each time."""

    def send(self, mail: Mail) -> Heard:
        """One message over a connection of its own."""
        self.serial += 1
        with MilterClient(self.daemon.address, timeout=60) as mta:
            mta.negotiate()
            return play(mta, mail, f"4CASE{self.serial}")

    def new_lines(self) -> list[bytes]:
        """Log lines since the last call, complete ones only."""
        with self.daemon.log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        end = text.rfind(b"\n") + 1
        self._read += end
        return text[:end].split(b"\n")[:-1]

    def memory(self) -> int:
        """Resident octets of the worker."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def play(mta: MilterClient, mail: Mail, queue_id: str = "4CASE") -> Heard:
    """One message over a negotiated connection."""
    mta.connect(mail.hostname, mail.ip, family=mail.family, macros=mail.macros)
    mta.helo(mail.helo)
    start = time.monotonic()
    mta.mail(mail.mail_from, *mail.parameters, macros=mail.mail_macros)
    for each in mail.rcpt:
        mta.rcpt(each)
    mta.data()
    for name, value in mail.fields:
        mta.header(name, value.replace(b"\r\n", mail.fold))
    mta.eoh(macros={"i": queue_id})
    mta.body(mail.body, chunk=mail.chunk)
    answer = mta.eom(macros={"i": queue_id})
    seconds = time.monotonic() - start
    return Heard(
        answer, own_field(answer, smtputf8=b"SMTPUTF8" in mail.parameters), seconds, mail=mail
    )


def own_field(answer: Answer, *, smtputf8: bool = False) -> strict_authres.Field | None:
    """I2: the field that we inserted, on top, strictly read; None where the message was refused."""
    if answer.code != 250:
        return None
    inserted = [
        each
        for each in answer.modifications
        if each.command == "i" and b"Authentication-Results\0" in each.data
    ]
    if not inserted:
        return None  # passed through unevaluated
    assert len(inserted) == 1, "more than one field of ours"
    name, value = answer.headers[0]
    assert name == b"Authentication-Results", answer.headers[:2]
    assert len(value) <= 8192
    return strict_authres.parse(value, name=name, smtputf8=smtputf8)


class Stage:
    """DNS and daemons for a module's cases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dns = DnsServer(ZONE)
        self.daemons: dict[str, RunningDaemon] = {}

    def __enter__(self) -> Self:
        self.dns.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for running in self.daemons.values():
            running.daemon.stop()
        self.dns.__exit__(None, None, None)

    def running(
        self, mode: str = "enforce", tables: Mapping[str, Mapping[str, Any]] = {}
    ) -> RunningDaemon:
        """The daemon of this mode (enforce, monitor, tempfail, accept, reject) and these further
        tables; started when first needed."""
        key = f"{mode} {tables}"
        if key in self.daemons:
            self.daemons[key] = self.daemons.pop(key)  # the least recently used stands first
        else:
            if len(self.daemons) >= MAX_DAEMONS:
                self.daemons.pop(next(iter(self.daemons))).daemon.stop()
            basis: dict[str, dict[str, Any]] = {
                "milter": {"workers": 1},
                "dns": {
                    "nameservers": [self.dns.nameserver],
                    "timeout": 2.0,
                    "budget": 8.0,
                    "cache_entries": 0,
                },
                "policy": {
                    "enforce": mode != "monitor",
                    "malformed_from": "reject" if mode == "reject" else "strictest",
                },
                "dmarc": {"on_temperror": mode if mode in ("tempfail", "accept") else "enforced"},
            }
            for name, table in tables.items():
                basis.setdefault(name, {}).update(table)
            self.daemons[key] = RunningDaemon(self.folder / str(time.monotonic_ns()), basis)
        return self.daemons[key]

    def check(self, case: Case) -> None:
        """The case under enforcement and in monitor mode, its other spellings, and every invariant
        after each."""
        modes = ["enforce", "monitor"]
        if case.verdict.result == "temperror":
            modes.append("tempfail")
        if case.verdict.result == "permerror" and not case.tables:
            modes.append("reject")
        for mode in modes:
            self.check_in(case, mode)
        if case.variants:
            for number, each in enumerate(spellings(case.mail)):
                self.check_in(
                    replace(case, mail=each, note=f"{case.note} spelling {number}"), "enforce"
                )

    def check_in(self, case: Case, mode: str) -> Heard:
        """One message in one mode. A machine that was busy elsewhere gets a second and a third try;
        a frozen worker fails them too."""
        running = self.running(mode, case.tables)
        for attempt in (1, 2, 3):
            heard, waited = self._play(running, case)
            if (waited <= STALL and heard.seconds <= case.seconds) or attempt == 3:
                break
        expected(case, mode, heard)
        self._invariants(running, case, heard)
        assert waited <= STALL, f"another session waited {waited:.2f} s"
        assert heard.seconds <= case.seconds, f"answered after {heard.seconds:.2f} s"
        return heard

    def script(self, zone: Zone, behaviour: str = "") -> None:
        """What the DNS says from now on; a behaviour never touches the probe's names."""
        names: dict[str, Spec] = {**ZONE, **zone}
        if behaviour:
            names = {
                name: spec if name.endswith("probe.tld") else {**spec, "behaviour": behaviour}
                for name, spec in names.items()
            }
            names["*"] = {"behaviour": behaviour}
            names["_dmarc.tld"] = {"TXT": []}
        self.dns.replace({name: spec for name, spec in names.items() if spec or name not in ZONE})
        self.dns.clear()

    def _play(self, running: RunningDaemon, case: Case) -> tuple[Heard, float]:
        self.script(case.zone, case.behaviour)
        with Prober(running) as prober:
            heard = running.send(case.mail)
        own = ("_dmarc.tld", TLD)  # the probing messages', and the daemon's questions at its start
        theirs = (name for name, _ in self.dns.queries if not name.startswith(NOBODY[:12]))
        asked = [name for name in theirs if name not in own and not name.endswith("probe.tld")]
        heard.queries = len(asked)
        return heard, prober.longest

    def _invariants(self, running: RunningDaemon, case: Case, heard: Heard) -> None:
        answer = heard.answer
        if heard.ours is not None:
            self._our_field(case, heard)
        left = [
            value
            for name, value in answer.headers
            if name.rstrip(b" \t").lower() == b"authentication-results"
        ]
        if answer.code == 250:
            below = tuple(left[1:] if heard.ours else left)
            if case.kept is not None:
                assert below == tuple(each.replace(b"\r\n", case.mail.fold) for each in case.kept)
            assert case.kept is not None or not any(could_be_ours(each) for each in below), below
            assert not any(
                name.rstrip(b" \t").lower() == b"x-dmarc-quarantine"
                for name, _ in answer.headers[2:]
            )
        assert heard.queries <= case.queries, f"I7: {heard.queries} queries"
        assert "untrapped" not in answer.text, "I4"
        assert answer.text.isascii(), answer.text
        assert "\r" not in answer.text, answer.text
        assert "\n" not in answer.text, answer.text
        self._good_message(running)
        self._log(running)

    @staticmethod
    def _our_field(case: Case, heard: Heard) -> None:
        assert heard.ours is not None
        assert heard.ours.authserv_id == AID.decode()
        dmarc = heard.dmarc
        passes = case.verdict.result == "pass"
        author = dmarc.properties.get("header.from", "")
        assert (
            passes
            or dmarc.result != "pass"
            or not (author == "legit.example" or author.endswith(".legit.example"))
        ), "I1"
        order = {"spf": 0, "dkim": 1, "arc": 2, "iprev": 3, "dmarc": 4}
        ranks = [order[each.method] for each in heard.ours.results]
        assert ranks == sorted(ranks), "I2: spf, dkim, arc, dmarc"
        for each in heard.ours.results:
            assert each.repeated <= {"policy.override", "policy.tag"}, each
            for comment in each.comments:
                assert not NAMES.search(comment), f"I2: the sender's text in a comment: {comment}"
        assert not heard.ours.comments

    def _good_message(self, running: RunningDaemon) -> None:
        """I3: the same worker, right after."""
        self.script({})
        heard = running.send(good())
        assert heard.dmarc.result == "pass", heard.show()
        assert heard.seconds < 2.0, f"I3: {heard.seconds:.2f} s"
        assert running.daemon.workers() == [running.pid], "I3: another worker process"

    @staticmethod
    def _log(running: RunningDaemon) -> None:
        """I4, I6."""
        for line in running.new_lines():
            assert re.fullmatch(rb"[ -~]{1,1023}", line), f"I6: {line[:200]!r}"
            assert b"Traceback" not in line, line
            assert b"untrapped" not in line, line
            assert b"event=failure" not in line, f"our own failure: {line!r}"
            running.stalls += b"spool: no commit within" in line
            assert running.stalls <= MAX_STALLS, line
            assert running.stalls or b"unrecorded" not in line, line

    def grows(self, case: Case, times: int = 100) -> int:
        """I5: by how many bytes the worker grew in so many repeats, after a first one."""
        running = self.running("enforce", case.tables)
        self.script(case.zone, case.behaviour)
        running.send(case.mail)
        before = running.memory()
        for _ in range(times):
            running.send(case.mail)
        grown = running.memory() - before
        self._good_message(running)
        self._log(running)
        return grown


class Prober:
    """A second connection to the same worker that keeps sending while a case runs; `longest` is
    what it waited at most."""

    def __init__(self, running: RunningDaemon) -> None:
        self._running = running
        self._over = threading.Event()
        self._sent = threading.Event()
        self.longest = 0.0
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            with MilterClient(self._running.daemon.address, timeout=30) as mta:
                mta.negotiate()
                letter = probe_mail()
                while True:
                    start = time.monotonic()
                    heard = play(mta, letter, "4PROBE")
                    assert heard.dmarc.result == "pass", heard.show()
                    self.longest = max(self.longest, time.monotonic() - start)
                    if self._over.wait(0.02):
                        return
        except BaseException as error:
            self._error = error


_PROBE: list[Mail] = []


def probe_mail() -> Mail:
    """The probe, signed once."""
    if not _PROBE:
        _PROBE.append(probe())
    return _PROBE[0]


def spellings(letter: Mail) -> Iterator[Mail]:
    """I8: the same message with CRLF folds, with other case of its names, and with every From value
    folded."""
    if any(b"\r\n" in value for _, value in letter.fields):
        yield replace(letter, fold=b"\r\n")
    yield replace(letter, fields=tuple((swapped(name), value) for name, value in letter.fields))
    yield replace(
        letter,
        fields=tuple(
            (name, b"\r\n\t" + value if _from(name) and value.strip() else value)
            for name, value in letter.fields
        ),
    )
    if not any(name.lower().startswith((b"dkim", b"arc")) for name, _ in letter.fields):
        yield replace(letter, fields=tuple(reversed(letter.fields)))


def swapped(name: bytes) -> bytes:
    return (
        name.swapcase()
        if name.lower() in (b"from", b"dkim-signature", b"authentication-results", b"subject")
        else name
    )


def _from(name: bytes) -> bool:
    return name.rstrip(b" \t").lower() == b"from"


def could_be_ours(value: bytes) -> bool:
    """Whether a careless reader finds our id at the start of a field: compatibility forms, quotes,
    comments and spaces aside."""
    text = unicodedata.normalize("NFKC", value.decode("utf-8", "replace")).casefold()
    while (shorter := re.sub(r"\([^()]*\)", "", text)) != text:
        text = shorter
    head = re.sub(r'["\\\s\x00]', "", text).partition(";")[0]
    return re.sub(r"(/?\d+|\.)+$", "", head) == AID.decode()


def expected(case: Case, mode: str, heard: Heard) -> None:
    """The verdict in this mode."""
    verdict, answer = case.verdict, heard.answer
    shown = heard.show()
    code = verdict.code
    if mode == "monitor" or (
        code == 451 and (mode == "accept" or (mode == "enforce" and not verdict.known))
    ):
        code = 250
    if mode == "reject" and verdict.result == "permerror":
        code = 550
    assert answer.code == code, shown
    if code == 550:
        assert answer.text.startswith("550 5.7.1 "), shown
        assert "DMARC" in answer.text, shown
        assert (mode == "reject") or verdict.domain in answer.text, shown
        assert len(answer.text) <= 500, shown
    elif code == 451:
        assert answer.text.startswith("451 4.4.3 "), shown
    else:
        _delivered(verdict, mode, heard)


def _delivered(verdict: Verdict, mode: str, heard: Heard) -> None:
    shown = heard.show()
    assert heard.ours is not None, shown
    dmarc = heard.dmarc
    assert dmarc.result == verdict.result, shown
    if verdict.result == "fail":
        assert dmarc.properties["header.from"].endswith(verdict.domain), shown
    text = strict_authres.unfold(
        heard.answer.headers[0][1], b"Authentication-Results", smtputf8=True
    )
    for word in verdict.words:
        assert word in re.sub(r"\s+", " ", text), f"{word!r} not in {shown}"
    marks = [value for name, value in heard.answer.headers if name.lower() == b"x-dmarc-quarantine"]
    assert bool(marks) == (verdict.quarantined and mode != "monitor"), shown

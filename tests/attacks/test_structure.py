"""Header block and message structure of the attack catalogue, and the milter protocol out of
order."""

from __future__ import annotations

import contextlib
import struct
import time
from dataclasses import replace

import pytest

from fakes.attack import (
    LEGIT_SIGNER,
    Case,
    Field,
    Mail,
    Stage,
    delivered,
    good,
    ids,
    mail,
    malformed,
    refused,
    spoof,
)
from fakes.milter_client import Answer, Gone, MilterClient

ADMIN = b"<admin@legit.example>"
FIRST = b"<first@attack.example>"
PASSES = delivered("header.from=legit.example")
FAILS = delivered("dkim=fail", result="fail")
NOBODY = malformed("", quarantined=True)
BODIES = {
    "bare LF": b"a\nb\n",
    "NUL": b"\x00" * 100 + b"\r\n",
    "no final CRLF": b"abc",
    "trailing CR": b"abc\r\n\r",
    "8-bit": bytes(range(256)) * 4,
    "empty": b"",
    "CRLF only": b"\r\n\r\n\r\n",
    "dots": b"..\r\n.\r\nMAIL FROM:<>\r\n",
}


def with_body(body: bytes, c: str = "relaxed/simple") -> Mail:
    return replace(mail(ADMIN, ip="203.0.113.9"), body=body).signed(LEGIT_SIGNER, c=c)


def beyond(letter: Mail, *fields: Field) -> Mail:
    """The letter, a header as large as the limit, and these fields below."""
    return replace(letter, fields=(*letter.fields, *[(b"X-A", b" " + b"b" * 60_000)] * 5, *fields))


HDR = [
    *(
        Case("HDR-01", good().top((b"X-Long", b" " + b"x" * size)), PASSES, note=str(size))
        for size in (999, 2000, 102_401)
    ),
    Case("HDR-01", spoof().top((b"X-Long", b" " + b"x" * 1_000_000)), refused(), note="1000000"),
    Case(
        "HDR-01",
        with_body(b"x" * 10_000_000 + b"\r\n", "relaxed/relaxed"),
        PASSES,
        variants=False,
        seconds=5,
        note="body line",
    ),
    Case(
        "HDR-01",
        mail(ADMIN, extra=[(b"X-Long", b" " + b"x" * 999)]).signed(
            LEGIT_SIGNER, headers=("from", "x-long")
        ),
        PASSES,
        note="signed",
    ),
    Case(
        "HDR-02",
        mail(ADMIN).signed(LEGIT_SIGNER, headers=("from",)),
        PASSES,
        note="one signed field",
    ),
    *(
        Case(
            "HDR-02",
            mail(ADMIN, extra=[(name, b" a"), (name, b" b")]).signed(
                LEGIT_SIGNER, headers=("from",)
            ),
            PASSES,
            note=f"two {name.decode()}",
        )
        for name in (b"Date", b"Message-ID", b"Subject", b"To")
    ),
    *(
        Case(
            "HDR-03",
            mail(
                b"<a@attack.example>", extra=[(b"X", b" a" + odd + b"From: <admin@legit.example>")]
            ),
            delivered("header.from=attack.example"),
            note=repr(odd),
        )
        for odd in (
            b"\r",
            b"\x0b",
            b"\x0c",
            b"\x1c",
            b"\x1d",
            b"\x1e",
            b"\xc2\x85",
            b"\x85",
            "\u2028".encode(),
            "\u2029".encode(),
        )
    ),
    *(
        Case(
            "HDR-03",
            spoof(extra=[(b"X", b" a" + odd + b"From: <x@attack.example>")]),
            refused(),
            note=f"the other way {odd!r}",
        )
        for odd in (b"\r", b"\x0b", b"\x0c", b"\xc2\x85", "\u2028".encode())
    ),
    *(
        Case("HDR-04", mail(extra=[(name, b" <admin@legit.example>")]), NOBODY, note=repr(name))
        for name in (b"X-", b"Fro:m", b"Fr om", b":", b"From:", b"\x7f")
    ),
    Case("HDR-05", spoof().top(*[(b"X-A", b" b")] * 20_000), refused(), variants=False, seconds=6),
    Case(
        "HDR-05",
        good().top(*[(b"X-A", b" b")] * 2_000),
        refused(),
        variants=False,
        note="signature below the limit",
    ),
    Case(
        "HDR-05", spoof().top((b"X-A", b" a" + b"\r\n b" * 30_000)), refused(), note="30000 folds"
    ),
    Case("HDR-05", mail(*[ADMIN] * 1_001), malformed(), note="1001 From", seconds=3),
    Case(
        "HDR-05",
        beyond(Mail(()), (b"From", b" " + ADMIN)),
        refused(),
        variants=False,
        note="From beyond the limit",
    ),
    Case(
        "HDR-05",
        beyond(mail(FIRST), (b"From", b" " + ADMIN)),
        malformed(),
        variants=False,
        note="another From beyond the limit",
    ),
    Case(
        "HDR-05",
        mail(*[FIRST] * 2_100, ADMIN),
        malformed("", code=550),
        variants=False,
        note="a From where none is kept",
        seconds=4,
    ),
    Case("HDR-06", Mail(()), NOBODY, variants=False, note="no header"),
    Case("HDR-06", Mail((), body=b""), NOBODY, variants=False, note="nothing"),
    Case("HDR-06", Mail((), body=b"\r\n"), NOBODY, variants=False, note="CRLF"),
    Case("HDR-06", replace(good(), body=b""), refused(), note="no body"),
    Case("HDR-07", mail(extra=[(b"X-Mailbox-Line", b" From admin@legit.example Thu")]), NOBODY),
    Case(
        "HDR-07",
        mail(b"<a@attack.example>", extra=[(b"From admin@legit.example Thu 10", b"00:00")]),
        delivered("header.from=attack.example"),
        note="as a field",
    ),
    *(Case("HDR-08", with_body(body), PASSES, note=name) for name, body in BODIES.items()),
    *(
        Case(
            "HDR-08",
            with_body(body, "simple/relaxed"),
            PASSES,
            note=f"relaxed {name}",
            variants=False,
        )
        for name, body in BODIES.items()
        if name != "bare LF"
    ),
    *(
        Case(
            "HDR-09",
            mail(b"J. Doe\r\n\t<admin@legit.example>").signed(LEGIT_SIGNER, c=c),
            PASSES,
            variants=c.startswith("relaxed"),
            note=c,
        )
        for c in (
            "simple/simple",
            "relaxed/relaxed",
            "simple/relaxed",
            "relaxed/simple",
            "simple",
            "relaxed",
        )
    ),
    *(
        Case(
            "HDR-09",
            mail(ADMIN, extra=[(b"X-Lead", lead + b"x")]).signed(
                LEGIT_SIGNER, c="simple/simple", headers=("from", "x-lead")
            ),
            PASSES,
            variants=False,
            note=repr(lead),
        )
        for lead in (b" ", b"  ", b"\t", b" \t ", b"")
    ),
    *(
        Case("HDR-12", replace(good(), rcpt=rcpt), PASSES, note=f"{len(rcpt)} recipients")
        for rcpt in ((b"<a@example.com>",) * 1000, (b"junk", b"<>", b"\xff", b"<" * 5000))
    ),
    Case("SMU-02", with_body(b"a\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<x>\r\nDATA\r\n"), PASSES),
    Case("SMU-02", with_body(b"a\n.\nb\r.\rc\r\n\x00.\r\n"), PASSES, note="odd ends"),
]


@pytest.mark.parametrize("case", HDR, ids=ids)
def test_a_message_of_odd_shape(stage: Stage, case: Case) -> None:
    """Exact bytes are hashed, nothing but a fold breaks a line, limits only ever make a verdict
    worse."""
    stage.check(case)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 16, 63, 64, 65534])
def test_a_body_in_pieces(stage: Stage, chunk: int) -> None:
    """DKM-21: the same hash however the body is cut."""
    body = (b"a  b \r\n\r\n\t\r\nc" * 5) + b"\r\n \r\n\r\n"
    stage.script({})
    for c in ("simple/simple", "simple/relaxed"):
        letter = replace(with_body(body, c), chunk=chunk)
        assert stage.running().send(letter).dmarc.result == "pass", c


# HDR-04, FRM-35, ESP-03 on the wire: header packets as no MTA should send them.
ODD_FIELDS = [
    b"From\0 <a@attack.example>\0 <admin@legit.example>\0",
    b"Fr\0om: <admin@legit.example>\0",
    b"From\0: <admin@legit.example>\0",
    b"From\0 <admin@legit.example\0@attack.example>\0",
    b"\0 <admin@legit.example>\0",
    b"X-\xe9\0 <admin@legit.example>\0",
    b"X-A\0 a\xe9\xff\0",
    b"\0\0",
    b"\0",
    b"",
    b"X-No-Value\0",
    b"X-No-End\0 value",
]


@pytest.mark.parametrize("packet", ODD_FIELDS, ids=repr)
def test_a_header_packet_as_no_mta_sends_it(stage: Stage, packet: bytes) -> None:
    """HDR-04: no crash, no pass, and never a 451 that would loop: the message is judged by its
    other fields, or the connection closed."""
    stage.script({})
    running = stage.running()
    with MilterClient(running.daemon.address) as mta:
        mta.negotiate()
        mta.connect("mx.attack.example", "192.0.2.66")
        mta.helo("mx.attack.example")
        mta.mail("<any@attack.example>")
        mta.rcpt("<v@example.com>")
        try:
            mta.packet("L", packet)
            for name, value in spoof().fields:
                mta.header(name, value)
            mta.eoh(macros={"i": "4ODD"})
            answer = mta.eom(macros={"i": "4ODD"})
        except Gone:
            answer = None
        if answer is not None:
            assert answer.code == 550, answer
            assert "DMARC" in answer.text
    assert running.send(good()).dmarc.result == "pass"
    assert running.daemon.workers() == [running.pid]
    for line in running.new_lines():
        assert b"Traceback" not in line, line


def opened(stage: Stage) -> MilterClient:
    stage.script({})
    mta = stage.running().daemon.client()
    mta.connect("mx.attack.example", "192.0.2.66")
    mta.helo("mx.attack.example")
    return mta


def whole(mta: MilterClient, letter: Mail) -> Answer:
    """A further message of the same client."""
    return mta.message(letter.fields, letter.body, mail_from=letter.mail_from)


def passed(answer: Answer) -> bool:
    return any("dmarc=pass" in value for value in answer.values("Authentication-Results"))


def test_two_messages_over_one_connection(stage: Stage) -> None:
    """HDR-10, HDR-11, HDR-12: each is judged by itself: after a pass, a refusal, and a RSET after
    MAIL, RCPT, header or body."""
    mta = opened(stage)
    assert passed(whole(mta, good()))
    assert whole(mta, spoof()).code == 550
    mta.mail("<a@legit.example>")
    mta.abort()
    mta.mail("<a@legit.example>")
    mta.rcpt("<rejected@example.com>")
    mta.abort()
    assert whole(mta, spoof()).code == 550
    mta.mail("<a@legit.example>")
    mta.rcpt("<v@example.com>")
    for name, value in good().fields:
        mta.header(name, value)
    mta.abort()
    assert whole(mta, spoof()).code == 550
    mta.mail("<a@legit.example>")
    mta.rcpt("<v@example.com>")
    for name, value in good().fields:
        mta.header(name, value)
    mta.eoh()
    mta.body(b"Hello.\r\n")
    mta.abort()
    answer = whole(mta, mail())
    assert "dmarc=permerror" in answer.values("Authentication-Results")[0]
    assert passed(whole(mta, good()))


ORDERS = [
    "E",
    "BE",
    "LE",
    "NE",
    "MLNBLE",
    "MLNLNE",
    "MLBNE",
    "RMLNE",
    "MNLE",
    "MLNEE",
    "MLNBEBE",
    "MLLNNBE",
    "HMLNBE",
    "MHLNBE",
    "MMLNBE",
]


@pytest.mark.parametrize("order", ORDERS)
def test_commands_out_of_order(stage: Stage, order: str) -> None:
    """HDR-10, FLT-10: an answer, silence or a close, as libmilter has it; never a pass, and the
    worker serves on."""
    mta = opened(stage)
    mta.sock.settimeout(0.5)
    answers: list[Answer] = []
    step = {
        "L": lambda: [
            mta.send("L", name + b"\0" + value + b"\0") for name, value in spoof().fields
        ],
        "N": lambda: mta.send("N"),
        "B": lambda: mta.send("B", b"Hello.\r\n"),
        "E": lambda: answers.append(mta.eom()),
    }
    with contextlib.suppress(Gone, TimeoutError):
        for command in order:
            if command in "MRH":
                mta.send(command, b"<any@attack.example>\0")
            else:
                step[command]()
    assert not any(map(passed, answers))
    mta.close()
    running = stage.running()
    assert running.send(good()).dmarc.result == "pass"
    assert running.daemon.workers() == [running.pid]
    for line in running.new_lines():
        assert b"Traceback" not in line, line
        assert b"event=failure" not in line, line


@pytest.mark.parametrize("length", [0, 0x7FFFFFFF, 0xFFFFFFFF, 10_000_000])
def test_a_packet_that_claims_a_length(stage: Stage, length: int) -> None:
    """DOS-02: nothing is allocated by a claimed length."""
    running = stage.running()
    before = running.memory()
    clients = [opened(stage) for _ in range(20)]
    for mta in clients:
        mta.raw(struct.pack(">I", length) + b"B")
    assert running.send(good()).dmarc.result == "pass"
    assert running.memory() - before < 64 * 1024 * 1024
    for mta in clients:
        mta.close()


def test_missing_macros(stage: Stage) -> None:
    """FLT-10: no queue id, no {client_addr}, no {daemon_name}."""
    mta = opened(stage)
    assert mta.message(spoof().fields, queue_id="").code == 550
    assert [line for line in stage.running().new_lines() if b"event=failure" in line] == []


def test_many_connections_that_send_nothing(stage: Stage) -> None:
    """DOS-01, DOS-02, I3: 300 idle or slow sessions neither grow the worker much nor keep a new one
    waiting."""
    running = stage.running()
    stage.script({})
    running.send(good())
    before = running.memory()
    clients = []
    for number in range(300):
        mta = MilterClient(running.daemon.address)
        clients.append(mta)
        if number % 3:
            mta.negotiate()
        if number % 3 == 2:
            mta.connect("mx.attack.example", "192.0.2.66")
    for mta in clients[2::3]:
        mta.raw(b"\0\0\1")
    time.sleep(0.5)
    # Each has its thread: Debian's libmilter may keep what comes in the same instant behind one of
    # them.
    start = time.monotonic()
    assert running.send(good()).dmarc.result == "pass"
    assert time.monotonic() - start < 2.0
    assert running.memory() - before < 64 * 1024 * 1024
    for mta in clients:
        mta.close()
    assert running.send(good()).dmarc.result == "pass"

"""Log lines: one line, printable ASCII, bounded, and never in the way."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import re
import select
import shlex
import socket
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.telemetry.log import (
    MAX_LINE,
    Log,
    json_line,
    quoted,
    take_standard_logging,
    text_line,
)

HOSTILE = [
    "a\r\nevent=forged",
    "\x1b[31mred",
    "nul\0",
    "%s%n",
    "x" * 10_000,
    "\u202egnp.exe",
    "\udcff\udc80",
    '"quoted" \\back',
    "k=v k=v",
    "\x7f\x80\x9f",
    "\U0001f600",
    "",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_stay_one_value_of_one_line(value: str) -> None:
    """LOG-01: CR, LF, ESC, NUL, bidi, surrogates, length."""
    for line in (
        text_line({"id": "4Q", "helo": value, "after": 1}),
        json_line({"id": "4Q", "helo": value, "after": 1}),
    ):
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < MAX_LINE
    words = shlex.split(text_line({"id": "4Q", "helo": value, "after": 1}))
    assert words[0] == "id=4Q"
    assert words[-1] == "after=1"
    assert len(words) == (3 if value else 2)


@given(
    st.dictionaries(
        st.sampled_from([f"k{n}" for n in range(30)]),
        st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats()),
    )
)
def test_any_values_make_a_bounded_line(fields: dict[str, str | int | bool | float | None]) -> None:
    """Text lines split into the fields that were given, in order; JSON lines parse."""
    line = text_line(fields)
    assert line.isascii()
    assert "\n" not in line
    assert len(line) < MAX_LINE
    keys = [word.partition("=")[0] for word in line.split(" ") if "=" in word]
    given_keys = [key for key in keys if key in fields]
    assert [key for key in fields if key in given_keys] == list(dict.fromkeys(given_keys))
    parsed = json.loads(json_line(fields), parse_constant=str)
    assert set(parsed) <= set(fields)
    assert len(json_line(fields)) < MAX_LINE


def test_plain_values_stand_bare() -> None:
    assert [quoted(each) for each in ("a.example", 5, True, 0.25, "two words", "")] == [
        "a.example",
        "5",
        "yes",
        "0.25",
        '"two words"',
        '""',
    ]


def test_the_id_comes_first() -> None:
    """One log line per message, queue id first."""
    reading, writing = os.pipe()
    Log(writing).info("message", dmarc="pass", id="4Q")
    assert os.read(reading, 1000) == b"id=4Q event=message level=info dmarc=pass\n"
    os.close(reading)
    os.close(writing)


def test_a_stuck_reader_stops_nobody() -> None:
    """FLT-14, LOG-01: lines are dropped and counted, in the supervisor and in a worker alike."""
    reading, writing = os.pipe()
    direct, threaded = Log(writing), Log(writing)
    for _ in range(2000):
        direct.info("x", text="y" * 200)
    assert direct.dropped > 0
    threaded.start()
    for _ in range(10_000):
        threaded.info("x", text="y" * 200)
    assert threaded.dropped > 0
    os.close(reading)
    threaded.stop(30)  # it ends by itself; its descriptor is given to the next who opens something
    os.close(writing)


def test_lines_in_quick_succession_are_written_together_whole_and_in_order() -> None:
    """Pieces that a pipe takes in one go (PIPE_BUF), so that lines of several workers never mix;
    stopping writes all that waits."""
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    log = Log(writer.fileno())
    log.start()
    log.info("first")
    assert reader.recv(9000) == b"event=first level=info\n"
    for number in range(40):
        log.info("x", number=number, text="y" * 200)
    log.stop()
    reader.setblocking(False)
    pieces = []
    with contextlib.suppress(BlockingIOError):
        while True:
            pieces.append(reader.recv(9000))
    assert len(pieces) < 20
    assert all(len(piece) <= select.PIPE_BUF and piece.endswith(b"\n") for piece in pieces)
    lines = b"".join(pieces).splitlines()
    assert [line.split(b"number=")[1].split()[0] for line in lines] == [
        b"%d" % number for number in range(40)
    ]
    reader.close()
    writer.close()


def test_a_closed_descriptor_stops_nobody() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    log = Log(writing)
    log.error("x")
    assert log.dropped == 1


def test_levels_are_respected() -> None:
    reading, writing = os.pipe()
    log = Log(writing, level="warning", form="json")
    log.debug("no")
    log.info("no")
    log.warning("yes", n=1)
    fields = json.loads(os.read(reading, 1000))
    assert (fields["event"], fields["level"], fields["n"]) == ("yes", "warning", 1)
    assert "time" in fields
    os.close(reading)
    os.close(writing)


@pytest.fixture
def taken() -> Iterator[None]:
    """The standard logging of this process writes to our log."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    take_standard_logging(Log())
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = before, level


def untimed(capfd: pytest.CaptureFixture[str]) -> str:
    """What was written to standard error, which is a file here, so that lines have their time."""
    return re.sub(r" time=\S+", "", capfd.readouterr().err)


@pytest.mark.usefixtures("taken")
def test_standard_logging_is_taken_over(capfd: pytest.CaptureFixture[str]) -> None:
    """Devices and libraries that use `logging` end up in the same lines, escaped alike."""
    logging.getLogger("dmarc_milter.ledger").error("full\nstop")
    assert untimed(capfd) == 'event=ledger level=error text="full\\x0astop"\n'


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("name", ["waitress", "waitress.queue", "flask.app", "pymilter"])
def test_libraries_write_from_warning_on_in_our_bounds(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """LOG-01: a request, header or host that a library quotes stays one value of one line."""
    for value in HOSTILE:
        logging.getLogger(name).warning("odd request %s", value)
        logging.getLogger(name).info("not written: %s", value)
    lines = untimed(capfd).split("\n")[:-1]
    assert len(lines) == len(HOSTILE)
    for line in lines:
        assert line.startswith(f'event={name.replace(".", "_")} level=warning text="odd request ')
        assert len(line) < MAX_LINE
        assert line.isascii()
        assert line.isprintable()


@pytest.mark.usefixtures("taken")
def test_an_exception_is_one_line_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    """Its text may hold the sender's bytes."""
    try:
        raise ValueError("odd\r\nevent=forged")
    except ValueError:
        logging.getLogger("flask.app").exception("Exception on / [GET]")
    assert untimed(capfd) == (
        "event=flask_app level=error"
        ' text="Exception on / [GET]: ValueError: odd\\x0d\\x0aevent=forged"\n'
    )


@pytest.mark.usefixtures("taken")
def test_warnings_of_python_are_lines_too(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old\nways", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    (line,) = untimed(capfd).splitlines()
    assert line.startswith("event=py_warnings level=warning text=")
    assert "DeprecationWarning: old\\x0aways" in line


@pytest.mark.usefixtures("taken")
def test_a_record_that_cannot_be_shown_disturbs_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    """A library's wrong format string is counted as a dropped line."""
    log = Log()
    take_standard_logging(log)
    (ours,) = logging.getLogger().handlers
    ours.handle(logging.makeLogRecord({"name": "waitress", "msg": "%d", "args": ("no number",)}))
    assert log.dropped == 1
    assert untimed(capfd) == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_on_a_terminal_have_the_time(terminal: bool) -> None:
    """Elsewhere whoever takes them notes it: the journal, syslog, a supervisor."""
    reading, writing = pty.openpty() if terminal else os.pipe()
    Log(writing).info("ready", workers=2)
    line = os.read(reading, 1000).decode()
    os.close(reading)
    os.close(writing)
    assert (
        bool(
            re.match(
                r"event=ready level=info time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
                r" workers=2",
                line,
            )
        )
        is terminal
    )

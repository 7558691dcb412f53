"""One line per event: stable names, everything escaped, at most 1 KiB. Writing never delays a
verdict."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import socket
import stat
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from types import TracebackType

from dmarc_milter.config import Config
from dmarc_milter.telemetry import journald

Value = str | int | float | bool | None
Entry = tuple[str, str, Mapping[str, Value], float]
LEVELS = ("debug", "info", "warning", "error")
MAX_LINE = 1024
"""Bytes, final newline included: a pipe takes that in one piece, so that lines of several workers
never mix."""
MAX_VALUE = 300
QUEUE = 4096
PAUSE = 0.05
"""Seconds between flushes."""
is_bare = re.compile(r"[A-Za-z0-9_.:@/+,<>()*;!?%&\[\]-]+").fullmatch
UNSAFE = re.compile(r"[^ !#-\[\]-~]")


def quoted(value: Value) -> str:
    """A value as it stands after `key=`: bare when harmless, otherwise in double quotes with
    escapes; printable ASCII only."""
    text = value if type(value) is str and len(value) <= MAX_VALUE else _text(value)
    return text if is_bare(text) else '"' + UNSAFE.sub(_escape, text) + '"'


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # an undecodable byte (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:x}}}"


def text_line(fields: Mapping[str, Value]) -> str:
    """`key=value key=value ...`; the first field is the message's queue id where there is one.
    Empty values are left out."""
    parts: list[str] = []
    room = MAX_LINE - 1
    for key, value in fields.items():
        if value is None or value == "":
            continue
        part = f"{key}={quoted(value)}"
        if len(part) + 1 > room:
            break
        parts.append(part)
        room -= len(part) + 1
    return " ".join(parts)


def json_line(fields: Mapping[str, Value]) -> str:
    """One JSON object, ASCII. Later fields give way when the line would be too long."""
    kept: dict[str, Value] = {}
    room = MAX_LINE - 3
    for key, value in fields.items():
        if value is None or value == "":
            continue
        kept[key] = value if isinstance(value, (bool, int, float)) else _text(value)
        cost = len(json.dumps({key: kept[key]})) + 1
        if cost > room:
            del kept[key]
            break
        room -= cost
    return json.dumps(kept)


def _is_file(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False


class Log:
    """Writes to a descriptor, standard error by default. `info(event, key=value, ...)`.

    A worker calls `start`: lines then go through a bounded queue to a thread. Before that, and in
    the supervisor, which may have no threads, they are written at once, or dropped where the reader
    is not keeping up. `dropped` counts.
    """

    def __init__(self, fd: int = 2, *, form: str = "text", level: str = "info") -> None:
        self._fd = fd
        self._journal = journald.connect(fd)
        self._render = json_line if form == "json" else text_line
        self.events_only = form == "json" or _is_file(fd)
        """Whether a sentence among the lines would be in nobody's form, or without its time."""
        self._timed = self.events_only or os.isatty(fd)
        # Elsewhere whoever takes the lines notes the time.
        self._least = LEVELS.index(level)
        self._queue: SimpleQueue[Entry | None] | None = None
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def start(self) -> None:
        """Render and write in a thread from now on."""
        self._queue = SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(self._queue,), name="log", daemon=True
        )
        self._thread.start()

    def stop(self, seconds: float = 1.0) -> None:
        """Write what is queued, as far as that succeeds in this time."""
        if self._queue is None or self._thread is None:
            return
        self._queue.put(None)
        self._thread.join(seconds)
        self._queue = None

    def close(self) -> None:
        """Let go of the journal; lines go to the descriptor from now on."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def writes(self, level: str) -> bool:
        """Whether lines of this level are written; for what costs something to find."""
        return LEVELS.index(level) >= self._least

    def debug(self, event: str, /, **fields: Value) -> None:
        self.write("debug", event, fields)

    def info(self, event: str, /, **fields: Value) -> None:
        self.write("info", event, fields)

    def warning(self, event: str, /, **fields: Value) -> None:
        self.write("warning", event, fields)

    def error(self, event: str, /, **fields: Value) -> None:
        self.write("error", event, fields)

    def write(self, level: str, event: str, fields: Mapping[str, Value]) -> None:
        """Never blocks, never raises for what the fields hold. A field named `id` comes first."""
        if not self.writes(level):
            return
        entry = (level, event, fields, time.time())
        if self._queue is None:
            self._write_now(entry)
        elif self._queue.qsize() < QUEUE:
            self._queue.put(entry)
        else:
            self.dropped += 1

    def _line(self, level: str, event: str, fields: Mapping[str, Value], at: float) -> bytes:
        head: dict[str, Value] = {"id": fields.get("id"), "event": event, "level": level}
        if self._timed:
            head["time"] = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
        return self._render({**head, **fields}).encode("ascii", "replace") + b"\n"

    def _write_now(self, entry: Entry) -> None:
        try:
            if self._to_journal(entry, socket.MSG_DONTWAIT):
                return
            if select.select([], [self._fd], [], 0)[1]:
                os.write(self._fd, self._line(*entry))
            else:
                self.dropped += 1
        except (OSError, ValueError):
            self.dropped += 1

    def _to_journal(self, entry: Entry, flags: int = 0) -> bool:
        """Whether the journal has it, with its fields; what it does not take goes to the
        descriptor."""
        if self._journal is None:
            return False
        level, event, fields, _ = entry
        shown = {
            key: UNSAFE.sub(_escape, _text(value))
            for key, value in {"event": event, **fields}.items()
        }
        try:
            self._journal.send(journald.entry(level, self._line(*entry)[:-1], shown), flags)
        except OSError:
            return False
        return True

    def _run(self, entries: SimpleQueue[Entry | None]) -> None:
        """A line is written at once, those that follow it within PAUSE together: a change of thread
        for each would cost more than it."""
        ended = False
        quiet_since = 0.0
        while not ended:
            waiting = [entries.get()]
            time.sleep(max(0.0, quiet_since + PAUSE - time.monotonic()))
            with contextlib.suppress(Empty):
                while len(waiting) < QUEUE:
                    waiting.append(entries.get_nowait())
            ended = None in waiting
            self._write_all([entry for entry in waiting if entry is not None])
            quiet_since = time.monotonic()

    def _write_all(self, entries: list[Entry]) -> None:
        """To the journal one by one, to the descriptor in pieces that a pipe takes whole."""
        piece: list[bytes] = []
        for entry in entries:
            try:
                if self._to_journal(entry):
                    continue
                line = self._line(*entry)
            except Exception:  # a field of ours that cannot be shown: the next line is tried
                self.dropped += 1
                continue
            if sum(map(len, piece)) + len(line) > select.PIPE_BUF:
                self._write_piece(piece)
                piece = []
            piece.append(line)
        if piece:
            self._write_piece(piece)

    def _write_piece(self, lines: list[bytes]) -> None:
        try:
            os.write(self._fd, b"".join(lines))
        except OSError:  # a full disk or a gone reader
            self.dropped += len(lines)


class _ToLog(logging.Handler):
    """Takes records of the standard logging into our log: with its format and bounds."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = record.name.removeprefix("dmarc_milter.").replace(".", "_")
            self._log.write(_level_of(record.levelno), event, {"text": _shown(record)})
        except Exception:  # a record with wrong arguments is a library's bug, not this message's
            self._log.dropped += 1


def _level_of(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    return "warning" if number >= logging.WARNING else "info"


def _shown(record: logging.LogRecord) -> str:
    """The message and, of an exception, its last line: lines are bounded."""
    text = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    return f"{text}: {type(error).__name__}: {error}" if error is not None else text


STDERR = 2
_opened: list[Log] = []
"""This process's own, once it is open: the last one."""


def open_log(config: Config, *, ours: int = logging.INFO) -> Log:
    """The log as [log] has it, for a process of this program; its standard logging goes there, and
    what it complains of."""
    log = Log(form=config.log.format, level=config.log.level)
    take_standard_logging(log, ours=ours)
    _opened[:] = [log]
    if events_only():
        _take_tracebacks(log)
    return log


def events_only() -> bool:
    """Whether standard error is a log of this process's that takes nothing but events."""
    try:
        return bool(_opened) and _opened[-1].events_only and sys.stderr.fileno() == STDERR
    except (AttributeError, OSError, ValueError):  # closed, or somebody's own stream
        return False


def complain(text: str) -> None:
    """What an administrator has to know, as one line: an event `problem` where this process has
    opened a log that takes nothing else, a sentence on standard error elsewhere."""
    if events_only():
        log = _opened[-1]
        log.error("problem", text=text)
    else:
        print(f"dmarc-milter: {text}", file=sys.stderr)


def _take_tracebacks(log: Log) -> None:
    """Exceptions that nobody catches, in a thread or where none can be raised, are one line too."""

    def in_thread(arguments: threading.ExceptHookArgs) -> None:
        log.error("exception", failure=_name_and_text(arguments.exc_type, arguments.exc_value))

    def nowhere(arguments: sys.UnraisableHookArgs) -> None:
        log.error("exception", failure=_name_and_text(arguments.exc_type, arguments.exc_value))

    def last(kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        log.error("exception", failure=_name_and_text(kind, error))

    threading.excepthook, sys.unraisablehook, sys.excepthook = in_thread, nowhere, last


def _name_and_text(kind: type[BaseException], error: BaseException | None) -> str:
    return f"{kind.__name__}: {error}"


def take_standard_logging(log: Log, *, ours: int = logging.INFO) -> None:
    """From now on the standard logging of this process writes to `log`: our own from level `ours`,
    libraries' from warning, and Python's warnings too (event `py_warnings`).

    The event is the logger's name, without `dmarc_milter.` and with underscores for dots.
    """
    root = logging.getLogger()
    root.handlers[:] = [_ToLog(log)]
    root.setLevel(logging.WARNING)
    logging.getLogger("dmarc_milter").setLevel(ours)
    logging.captureWarnings(capture=True)

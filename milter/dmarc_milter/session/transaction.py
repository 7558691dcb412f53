"""From a session's events to the core and back: early look-ups, the evaluation, the record, the log
line, the counters.

It is plain synchronous code in a task of the loop, which waits where an answer or the record is not
there yet, and gives way where it has run for long.
"""

from __future__ import annotations

import hashlib
import time
from itertools import chain

from dmarc_milter.core.actions.plan import (
    Action,
    DeleteHeader,
    Reply,
    is_refusal,
    plan_actions,
    remove_forged,
    within_limit,
)
from dmarc_milter.core.authenticate import Prepared, authenticate, prepare
from dmarc_milter.core.budget import spf_early_queries
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.fair_sharing import client_network
from dmarc_milter.core.mail import author as address
from dmarc_milter.core.mail.facts import message_facts
from dmarc_milter.core.mail.message import Envelope, Headers
from dmarc_milter.core.policy.decide import Deferral, Disposition, Verdict
from dmarc_milter.core.resolver import Shortage, abandon, delay
from dmarc_milter.core.spf.check import SpfResult, SpfStatus, not_evaluated
from dmarc_milter.core.spf.check import check as check_spf
from dmarc_milter.core.spf.check import is_known as is_spf_known
from dmarc_milter.process.loop import Task
from dmarc_milter.process.shared_memory import FINGERPRINT, WorkerSlot
from dmarc_milter.session.context import WorkerContext
from dmarc_milter.session.early_spf import EarlySpf
from dmarc_milter.session.handler import Own
from dmarc_milter.telemetry.message_log import fields_of, steps

NO_HEADERS = Headers(())
NOTICED = 0.05
"""Seconds of waiting for the processor that are taken from the message's time."""
BATCH = 16 * 1024
"""Small pieces of a body are put together before they are hashed."""


class CoreHandler:
    """What stands behind a worker's sessions (session/handler.py, MessageHandler)."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    def begin(self, envelope: Envelope) -> CoreTransaction:
        return CoreTransaction(self._context, envelope)

    def pass_through(self, headers: Headers, *, keep_results: bool) -> tuple[Action, ...]:
        removals = remove_forged(headers, self._context.marking, keep_results=keep_results)
        if is_refusal(removals):
            _refused(self._context, headers)
        return removals

    def unjudged(
        self, headers: Headers, envelope: Envelope, *, keep_results: bool
    ) -> tuple[Action, ...]:
        removals = self.pass_through(headers, keep_results=keep_results)
        if is_refusal(removals):
            return removals
        evaluation = _not_evaluated(
            self._context, envelope, Verdict(Disposition.NONE), "not evaluated"
        )
        return (*removals, *plan_actions(evaluation, NO_HEADERS, self._context.marking))

    def exempted(self, name: str, envelope: Envelope, why: str) -> None:
        self._context.meter.count("messages_exempt")
        self._context.log.info("exempt", id=name, reason=why, source=str(envelope.source_ip or ""))

    def overloaded(self, name: str, envelope: Envelope | None, reason: str) -> None:
        self._context.meter.count("messages_overloaded")
        source = str((envelope.source_ip if envelope else None) or "")
        self._context.log.warning("overloaded", id=name, source=source, reason=reason)

    def failed(self, name: str, where: str, error: str) -> None:
        self._context.meter.count("failures")
        self._context.log.error("failure", id=name, where=where, error=error)


class _Blamed:
    """While it is entered, and its task does not wait, a death of the worker is blamed on the
    message (crash_guard.py)."""

    __slots__ = ("_fingerprint", "_outer", "_slot", "_task")

    def __init__(self, slot: WorkerSlot, task: Task | None, fingerprint: bytes) -> None:
        self._slot, self._task, self._fingerprint = slot, task, fingerprint
        self._outer = None if task is None else task.on_switch

    def __enter__(self) -> None:
        self._switch(True)
        if self._task is not None:
            self._task.on_switch = self._switch

    def __exit__(self, *_: object) -> None:
        outer = self._outer
        if self._task is not None:
            self._task.on_switch = outer
        self._switch(False) if outer is None else outer(True)

    def _switch(self, running: bool) -> None:
        self._slot.show(self._fingerprint if running else None)


class CoreTransaction:
    """One message through the core (session/handler.py, MailTransaction)."""

    def __init__(self, context: WorkerContext, envelope: Envelope) -> None:
        self._context = context
        self._began = time.monotonic()
        self._resolver = context.dns.for_message(
            context.options.seconds, context.max_queries, client_network(envelope.source_ip)
        )
        self._envelope = envelope
        self._fingerprint = self._sender = fingerprint(envelope)
        self._spf_allowed = not context.shared_memory.is_blocked(self._sender, now=self._began)
        self._prepared: Prepared | None = None
        self._headers = NO_HEADERS
        self._own = Own()
        self._keep = False
        self._removals: tuple[DeleteHeader, ...] | tuple[Reply] = ()
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._early = self._early_spf()

    def _early_spf(self) -> EarlySpf | None:
        """None where there is nothing to ask, or no part of it must be read again."""
        options = self._context.options.spf
        if not self._spf_allowed or is_spf_known(self._envelope, self._resolver, options):
            return None
        return EarlySpf(
            self._envelope,
            self._resolver,
            options,
            self._context.loop,
            lambda: self._blamed(self._sender),
            spf_early_queries(self._context.max_queries),
        )

    def headers(self, headers: Headers) -> None:
        self._headers = headers
        self._fingerprint = fingerprint(self._envelope, headers)
        if not self._context.shared_memory.is_blocked(self._fingerprint, now=time.monotonic()):
            self._prepared = self._prepare()

    def body(self, chunk: bytes) -> bool:
        if self._prepared is None:
            return False
        self._pieces.append(chunk)
        self._waiting += len(chunk)
        if self._waiting >= BATCH:
            return self._hash(self._prepared)
        return True

    def finish(self, envelope: Envelope, own: Own, *, keep_results: bool) -> tuple[Action, ...]:
        self._envelope = envelope
        self._own = own
        self._keep = keep_results
        self._end_early()  # the check asks for itself from here on
        try:
            return self._judge()
        finally:
            abandon(self._resolver)

    def cancel(self) -> None:
        """Look-ups end too; what other messages wait for as well goes on for them."""
        self._end_early()
        abandon(self._resolver)
        self._pieces.clear()

    def _end_early(self) -> None:
        if self._early is not None:
            self._early.end()

    def _check_spf(self) -> SpfResult:
        with self._blamed(self._sender):
            return check_spf(self._envelope, self._resolver, self._context.options.spf)

    def _hash(self, ready: Prepared) -> bool:
        if ready.wants_body:
            ready.hash(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
        self._pieces.clear()
        self._waiting = 0
        return ready.wants_body

    def _prepare(self) -> Prepared:
        """Read From and the signatures, and start every look-up that they lead to."""
        with self._blamed(self._fingerprint):
            return prepare(self._headers, self._resolver, self._context.options)

    def _blamed(self, fingerprint: bytes) -> _Blamed:
        return _Blamed(self._context.slot, self._context.loop.task, fingerprint)

    def _judge(self) -> tuple[Action, ...]:
        """Evaluate, record, log: in this order, all before the MTA gets its answer."""
        context, started = self._context, time.monotonic()
        waited = self._time_lost()
        if self._prepared is not None:
            with self._blamed(self._fingerprint):
                self._removals = remove_forged(
                    self._headers,
                    context.marking,
                    keep_results=self._keep,
                    pause=context.loop.pause,
                )
            if is_refusal(self._removals):
                _refused(context, self._headers, self._envelope)
                return self._removals
        evaluation, actions = self._verdict()
        judged = time.monotonic()
        recorded = self._record(evaluation)
        ended = time.monotonic()
        stages = {
            "wait": waited,
            "evaluate": judged - started,
            "record": ended - judged,
        }
        seconds = ended - self._began
        context.meter.message(evaluation, seconds, recorded=recorded, stages=stages)
        self._log(evaluation, actions, seconds, recorded=recorded)
        return actions

    def _time_lost(self) -> float:
        """Seconds that the message has waited for the processor: our doing, and part of its time.
        Raises Shortage when they are all of it."""
        task, seconds = self._context.loop.task, self._context.options.seconds
        if task is None or task.waited <= NOTICED:
            return 0.0
        if task.waited > seconds:
            raise Shortage("its turn did not come in time")
        waited, task.waited = task.waited, 0.0
        delay(self._resolver, waited)
        return waited

    def _verdict(self) -> tuple[Evaluation, tuple[Action, ...]]:
        if self._prepared is None:
            self._context.meter.count("messages_poisoned")
            return self._temperror()
        with self._blamed(self._fingerprint):
            evaluation = self._evaluate(self._prepared)
            return evaluation, plan_actions(
                evaluation,
                self._headers,
                self._context.marking,
                keep_results=self._keep,
                removals=self._removals,
            )

    def _record(self, evaluation: Evaluation) -> bool:
        """Whether the spool has it for certain."""
        recorder = self._context.recorder
        quoted = self._context.header_sample(evaluation, self._headers)
        return (
            recorder.record(evaluation) if quoted is None else recorder.record(evaluation, quoted)
        )

    def _log(
        self,
        evaluation: Evaluation,
        actions: tuple[Action, ...],
        seconds: float,
        *,
        recorded: bool,
    ) -> None:
        log, fields = self._context.log, fields_of(evaluation, actions)
        unrecorded = {} if recorded else {"unrecorded": True}
        log.info("message", **fields, seconds=round(seconds, 3), **unrecorded)
        name = str(fields["id"])
        deferral = evaluation.verdict.deferral
        if deferral and deferral.reason == "overloaded":
            source = str(self._envelope.source_ip or "")
            log.warning("overloaded", id=name, source=source, reason="look-ups not sent in time")
        if log.writes("debug"):
            self._explain(evaluation, name)

    def _explain(self, evaluation: Evaluation, name: str) -> None:
        """To the log. A bug in explaining must not defer mail."""
        try:
            for sentence in steps(evaluation):
                self._context.log.debug("step", id=name, text=sentence)
        except Exception as error:
            self._context.log.error("failure", id=name, where="explain", error=repr(error))

    def _evaluate(self, ready: Prepared) -> Evaluation:
        if self._pieces:
            self._hash(ready)
        own = self._own
        request = ready.request(
            self._context.new_id(),
            self._envelope,
            self._spf_result,
            to_reporting=own.recipient,
            from_reporting=own.sender,
            canonify=self._context.canonify(self._envelope.mta),
        )
        return authenticate(
            request,
            self._resolver,
            self._context.options,
            now=self._context.now(),
            pct_draw=self._context.pct_draw(),
        )

    def _spf_result(self) -> SpfResult:
        # Two workers died while SPF of this sender was checked; the rest of the message may be
        # harmless.
        if not self._spf_allowed:
            return not_evaluated(
                self._envelope, "not evaluated again: it stopped two worker processes"
            )
        return self._check_spf()

    def _temperror(self) -> tuple[Evaluation, tuple[Action, ...]]:
        """For a message that has killed two workers: nothing of it is read again (on_error
        applies)."""
        context = self._context
        policy = context.options.policy
        deferral = Deferral("failure") if policy.on_error == "tempfail" else None
        would_wait, deferral = (None, deferral) if policy.enforce else (deferral, None)
        because = "This message stopped two worker processes."
        verdict = Verdict(
            Disposition.NONE, deferral=deferral, would_wait=would_wait, decided_by=because
        )
        evaluation = _not_evaluated(
            context, self._envelope, verdict, "not evaluated again: it stopped two worker processes"
        )
        planned = plan_actions(evaluation, NO_HEADERS, context.marking)
        if any(isinstance(action, Reply) for action in planned):
            return evaluation, planned
        removals = within_limit(remove_unread(self._headers), self._headers, context.marking)
        return evaluation, removals if is_refusal(removals) else (*removals, *planned)


def _not_evaluated(
    context: WorkerContext, envelope: Envelope, verdict: Verdict, why: str
) -> Evaluation:
    """What stands for the evaluation of a message of which nothing was read."""
    return Evaluation(
        id=context.new_id(),
        at=context.now(),
        envelope=envelope,
        author=address.Author(None, why),
        facts=message_facts(NO_HEADERS, envelope),
        spf=SpfResult(SpfStatus.TEMPERROR, None, reason="not evaluated"),
        dkim=(),
        arc=None,
        iprev=None,
        dmarc=DmarcResult(DmarcStatus.TEMPERROR, None, reason="not evaluated"),
        verdict=verdict,
    )


def _refused(context: WorkerContext, headers: Headers, envelope: Envelope | None = None) -> None:
    """Note a message that is refused because its edits would cost the MTA too much."""
    context.meter.count("messages_over_limit")
    name, source = (envelope.queue_id, envelope.source_ip or "") if envelope else ("", "")
    context.log.warning(
        "over_limit", id=name, limit="removable_fields", fields=headers.total, source=str(source)
    )


def remove_unread(headers: Headers) -> tuple[DeleteHeader, ...]:
    """Every field that could be forged goes, whoever it names, because its value is not to be
    looked at."""
    names = (
        ("Authentication-Results", b"authentication-results"),
        ("X-DMARC-Quarantine", b"x-dmarc-quarantine"),
    )
    return tuple(
        DeleteHeader(shown, index)
        for shown, name in names
        for index in range(len(headers.positions(name)), 0, -1)
    )


def fingerprint(envelope: Envelope, headers: Headers | tuple[()] = ()) -> bytes:
    """What a message is known by when it comes again: its sender and header fields, not the queue
    id or client.

    Before the header fields are there: the sender and HELO, which is what SPF reads.
    """
    digest = hashlib.blake2b(digest_size=FINGERPRINT)
    sender = envelope.mail_from
    helo = "" if headers else envelope.helo
    digest.update(
        f"{sender.local_part}@{sender.domain} {helo}\n".encode("utf-8", "surrogateescape")
    )
    digest.update(b"\n".join(chain.from_iterable(headers)))
    return digest.digest()

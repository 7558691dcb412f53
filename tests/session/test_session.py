"""The session's events in every order, without a socket."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmarc_milter.core.actions.plan import Action, DeleteHeader, InsertHeader, Reply
from dmarc_milter.core.mail.message import Envelope, Headers
from dmarc_milter.core.resolver import Shortage
from dmarc_milter.mta.macros import mta_named, parse_address, queue_id
from dmarc_milter.session.handler import TRY_LATER, Own, SessionOptions
from dmarc_milter.session.session import TOO_MANY_FIELDS, Session

MARKED = (InsertHeader("Authentication-Results", " mx.example.com; dmarc=fail"),)
STRIPPED = (DeleteHeader("Authentication-Results", 1),)
UNJUDGED: tuple[Action, ...] = (
    InsertHeader("Authentication-Results", " mx.example.com; dmarc=temperror"),
)


@dataclass
class RecordedTransaction:
    """One message as the handler saw it."""

    begun: Envelope
    fields: Headers | None = None
    octets: bytes = b""
    finished: Envelope | None = None
    own: Own = Own()
    keep: bool = False
    cancelled: bool = False
    breaks: str = ""
    error: Exception | None = None
    wants_body: bool = True

    def headers(self, headers: Headers) -> None:
        self._maybe("headers")
        self.fields = headers

    def body(self, chunk: bytes) -> bool:
        self._maybe("body")
        self.octets += chunk
        return self.wants_body

    def finish(self, envelope: Envelope, own: Own, *, keep_results: bool) -> tuple[Action, ...]:
        self._maybe("finish")
        self.finished, self.own, self.keep = envelope, own, keep_results
        return MARKED

    def cancel(self) -> None:
        self._maybe("cancel")
        self.cancelled = True

    def _maybe(self, step: str) -> None:
        if self.breaks == step:
            raise self.error or RuntimeError(step)


@dataclass
class RecordingHandler:
    """Notes everything; `breaks` names the step that fails."""

    transactions: list[RecordedTransaction] = field(default_factory=list)
    passed: list[tuple[Headers, bool]] = field(default_factory=list)
    marked: list[Envelope] = field(default_factory=list)
    exempt: list[tuple[str, str]] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    shortages: list[tuple[str, str]] = field(default_factory=list)
    breaks: str = ""
    error: Exception | None = None
    wants_body: bool = True

    def begin(self, envelope: Envelope) -> RecordedTransaction:
        if self.breaks == "begin":
            raise self.error or RuntimeError("begin")
        self.transactions.append(
            RecordedTransaction(
                envelope, breaks=self.breaks, error=self.error, wants_body=self.wants_body
            )
        )
        return self.transactions[-1]

    def pass_through(self, headers: Headers, *, keep_results: bool) -> tuple[Action, ...]:
        if self.breaks == "pass_through":
            raise RuntimeError("pass_through")
        self.passed.append((headers, keep_results))
        return STRIPPED

    def unjudged(
        self, headers: Headers, envelope: Envelope, *, keep_results: bool
    ) -> tuple[Action, ...]:
        self.pass_through(headers, keep_results=keep_results)
        self.marked.append(envelope)
        return UNJUDGED

    def exempted(self, name: str, envelope: Envelope, why: str) -> None:
        self.exempt.append((name, why))

    def overloaded(self, name: str, envelope: Envelope | None, reason: str) -> None:
        self.shortages.append((name, reason))

    def failed(self, name: str, where: str, error: str) -> None:
        self.failures.append((name, where, error))


def macros(values: Mapping[str, str] = {}) -> Callable[[str], str]:
    return lambda name: values.get(name, "")


def session(
    handler: RecordingHandler,
    options: SessionOptions = SessionOptions(),
    address: str | None = "192.0.2.66",
) -> Session:
    """A session with a client and a HELO."""
    made = Session(handler, options, name="c0")
    made.connect(address, macros({"{daemon_name}": "smtpd"}))
    made.helo("mx.attack.example")
    return made


def send(
    one: Session,
    *fields: tuple[bytes, bytes],
    body: bytes = b"Hello\r\n",
    mail: Mapping[str, str] = {},
) -> tuple[Action, ...]:
    """A whole message."""
    one.mail(b"<any@attack.example>", (), macros(mail))
    one.rcpt(b"<v@example.com>")
    for name, value in fields or ((b"From", b" <a@b.example>"),):
        one.header(name, value)
    one.end_of_headers(macros({"i": "4QUEUE"}))
    one.body(body)
    return one.end_of_message(macros({"i": "4QUEUE"}))


def test_a_message_reaches_the_evaluator_whole() -> None:
    """Envelope, header fields byte for byte with CRLF folds, body, queue id."""
    handler = RecordingHandler()
    one = session(handler)
    assert (
        send(one, (b"From", b" <a@b.example>"), (b"X-Folded \t", b" one\n two\r\n\tthree\rfour"))
        == MARKED
    )
    (transaction,) = handler.transactions
    assert transaction.begun.source_ip == ip_address("192.0.2.66")
    assert transaction.begun.helo == "mx.attack.example"
    assert str(transaction.begun.mail_from.domain) == "attack.example"
    assert transaction.fields is not None
    assert transaction.fields.fields == (
        (b"From", b" <a@b.example>"),
        (b"X-Folded", b" one\r\n two\r\n\tthree\rfour"),
    )
    assert not transaction.fields.truncated
    assert transaction.octets == b"Hello\r\n"
    assert transaction.finished is not None
    assert transaction.finished.queue_id == "4QUEUE"
    assert [str(each) for each in transaction.finished.rcpt_domains] == ["example.com"]


def test_spf_can_start_at_mail_from() -> None:
    """The handler is told at MAIL, before any header field, and the recipients are not yet known
    to it."""
    handler = RecordingHandler()
    session(handler).mail(b"<any@attack.example>", (), macros())
    assert len(handler.transactions) == 1
    assert handler.transactions[0].begun.rcpt_domains == ()


def test_nothing_is_carried_to_the_next_message() -> None:
    """HDR-10, HDR-11: fields, recipients, body, queue id and failures of one message are gone in
    the next."""
    handler = RecordingHandler()
    one = session(handler)
    send(one, (b"From", b" <good@legit.example>"), (b"DKIM-Signature", b" v=1"))
    one.mail(b"<>", (), macros())
    one.header(b"Subject", b" second")
    one.end_of_message(macros())
    second = handler.transactions[1]
    assert second.fields is not None
    assert second.fields.fields == ((b"Subject", b" second"),)
    assert second.octets == b""
    assert second.finished is not None
    assert (second.finished.queue_id, second.finished.rcpt_domains) == ("", ())
    assert second.finished.mail_from.is_null


@pytest.mark.parametrize("ending", ["abort", "mail", "helo", "close"])
def test_a_message_given_up_is_cancelled(ending: str) -> None:
    """RSET, MAIL, HELO again and the end of the connection end a message; the next is clean."""
    handler = RecordingHandler()
    one = session(handler)
    one.mail(b"<one@attack.example>", (), macros())
    one.header(b"From", b" <first@legit.example>")
    match ending:
        case "abort":
            one.abort()
        case "mail":
            one.mail(b"<two@attack.example>", (), macros())
        case "helo":
            one.helo("other.example")
        case "close":
            one.close()
    assert handler.transactions[0].cancelled
    send(one)
    last = handler.transactions[-1]
    assert last.fields is not None
    assert last.fields.values(b"from") == (b" <a@b.example>",)
    if ending == "helo":
        assert last.begun.helo == "other.example"


def test_a_second_helo_counts() -> None:
    """RFC 5321 4.1.4: EHLO may come again (after STARTTLS, say)."""
    handler = RecordingHandler()
    one = session(handler)
    one.helo("second.example")
    send(one)
    assert handler.transactions[0].begun.helo == "second.example"


def test_smtputf8_is_taken_from_the_parameters() -> None:
    handler = RecordingHandler()
    one = session(handler)
    one.mail(b"<a@b.example>", (b"SIZE=12", b"smtputf8"), macros())
    one.mail(b"<a@b.example>", (b"SIZE=12",), macros())
    assert [each.begun.smtputf8 for each in handler.transactions] == [True, False]


@pytest.mark.parametrize(
    ("address", "mail", "daemon", "why"),
    [
        ("10.1.2.3", {}, "smtpd", "trusted network"),
        ("::ffff:10.1.2.3", {}, "smtpd", "trusted network"),
        ("192.0.2.66", {"{auth_authen}": "alice"}, "smtpd", "authenticated"),
        ("192.0.2.66", {}, "MSA", "trusted daemon"),
        ("192.0.2.66", {"{daemon_name}": "MSA"}, "", "trusted daemon"),
        (None, {"{client_addr}": "10.1.2.3"}, "smtpd", "trusted network"),
    ],
)
def test_exempt_clients_are_not_evaluated_but_stripped(
    address: str | None, mail: Mapping[str, str], daemon: str, why: str
) -> None:
    """docs/design.md: authenticated clients, trusted daemons and networks pass; forged fields are
    still removed."""
    handler = RecordingHandler()
    options = SessionOptions(
        trusted_networks=(ip_network("10.0.0.0/8"),), trusted_daemons=frozenset({"MSA"})
    )
    one = Session(handler, options, name="c0")
    one.connect(address, macros({"{daemon_name}": daemon}))
    assert send(one, mail=mail) == STRIPPED
    assert handler.exempt == [("4QUEUE", why)]
    assert handler.transactions == []


@pytest.mark.parametrize(
    ("address", "mail"),
    [
        ("192.0.2.66", {}),
        ("192.0.2.66", {"{auth_authen}": ""}),
        (None, {}),
        ("junk", {}),
        ("2001:db8::1", {}),
    ],
)
def test_nothing_that_a_message_says_exempts_it(
    address: str | None, mail: Mapping[str, str]
) -> None:
    """FWD-02: only the MTA's macros and the client's address count."""
    handler = RecordingHandler()
    options = SessionOptions(
        trusted_networks=(ip_network("10.0.0.0/8"),), trusted_daemons=frozenset({"MSA"})
    )
    one = Session(handler, options, name="c0")
    one.connect(address, macros())
    assert (
        send(
            one,
            (b"X-Authenticated", b" yes"),
            (b"Received", b" from x ([10.0.0.1]) by y"),
            mail=mail,
        )
        == MARKED
    )


def test_missing_macros_do_no_harm() -> None:
    """FLT-10: no queue id, no daemon name."""
    handler = RecordingHandler()
    one = Session(handler, SessionOptions(), name="c0")
    one.connect("192.0.2.66", macros())
    one.mail(b"<any@attack.example>", (), macros())
    one.end_of_headers(macros())
    assert one.end_of_message(macros()) == MARKED


def test_the_queue_id_of_the_end_of_message_wins() -> None:
    """Postfix knows it late; where only end of headers had it, that one is used."""
    handler = RecordingHandler()
    one = session(handler)
    for at_headers, at_end, expected in (
        ("A1", "B2", "B2"),
        ("A1", "", "A1"),
        ("", "B2", "B2"),
        ("A 1\n", "", ""),
    ):
        one.mail(b"<a@b.example>", (), macros())
        one.end_of_headers(macros({"i": at_headers}))
        one.end_of_message(macros({"i": at_end}))
        finished = handler.transactions[-1].finished
        assert finished is not None
        assert finished.queue_id == expected


RELAYS = SessionOptions(
    trusted_relays=(ip_network("198.51.100.0/24"),),
    trusted_networks=(ip_network("198.51.100.0/24"),),
)


def test_a_relay_is_seen_through() -> None:
    """docs/design.md, trusted_relays: client and HELO from the topmost Received field naming a host
    outside; nothing before that."""
    handler = RecordingHandler()
    one = session(handler, RELAYS, "198.51.100.7")
    one.mail(b"<any@attack.example>", (), macros())
    assert handler.transactions == []
    one.header(
        b"Received",
        b" from inner (inner [198.51.100.8]) by front with ESMTP id 1; Sun, 22 Nov 2026 00:00:00"
        b" +0000",
    )
    one.header(
        b"Received",
        b" from real.example (unknown [203.0.113.9]) by front with ESMTP id 2; Sun, 22 Nov 2026"
        b" 00:00:00 +0000",
    )
    one.end_of_headers(macros())
    assert one.end_of_message(macros()) == MARKED
    begun = handler.transactions[0].begun
    assert (begun.source_ip, begun.helo, begun.source_known) == (
        ip_address("203.0.113.9"),
        "real.example",
        True,
    )


def test_an_unreadable_relay_leaves_the_source_unknown() -> None:
    """docs/design.md: SPF is then none and a DMARC failure at most quarantined."""
    handler = RecordingHandler()
    one = session(handler, RELAYS, "198.51.100.7")
    send(one, (b"From", b" <a@b.example>"))
    begun = handler.transactions[0].begun
    assert (begun.source_ip, begun.source_known) == (None, False)


def test_kept_results_are_by_the_client_alone() -> None:
    """keep_results_from is never implied by trusted_networks."""
    network = (ip_network("192.0.2.0/24"),)
    for options, keep in (
        (SessionOptions(keep_results_from=network), True),
        (SessionOptions(trusted_networks=network), False),
    ):
        handler = RecordingHandler()
        send(session(handler, options))
        assert [each.keep for each in handler.transactions] + [
            each[1] for each in handler.passed
        ] == [keep]


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_message_to_others_too_is_not_to_us_alone(ours_first: bool) -> None:
    """RPT-60: a second recipient must not keep a forgery out of the reports."""
    handler = RecordingHandler()
    one = session(handler, SessionOptions(own_addresses=frozenset({b"dmarc@mx.example.com"})))
    one.mail(b"<a@b.example>", (), macros())
    both = [b"<dmarc@mx.example.com>", b"<v@example.com>"]
    for each in both if ours_first else reversed(both):
        one.rcpt(each)
    one.end_of_message(macros())
    assert handler.transactions[0].own == Own()


@pytest.mark.parametrize(
    "odd",
    [
        b"<ceo>",
        b"<ceo@[192.0.2.25]>",
        b"<postmaster>",
        b"<@a.example:ceo@example.com>",
        b"<ceo@\xff.example>",
    ],
)
def test_a_recipient_without_a_domain_is_not_forgotten(odd: bytes) -> None:
    """FWD-25: what holds for all recipients holds for none then."""
    handler = RecordingHandler()
    one = session(handler)
    for paths, known in (
        ([b"<a@example.com>", b"<b@example.com>"], True),
        ([b"<a@example.com>", odd], False),
        ([odd], False),
    ):
        one.mail(b"<a@b.example>", (), macros())
        for each in paths:
            one.rcpt(each)
        one.end_of_message(macros())
        finished = handler.transactions[-1].finished
        assert finished is not None
        assert finished.rcpt_known == known


def test_the_thousand_and_first_recipient_domain_counts_too() -> None:
    """FWD-26: more of the same thousand domains do no harm."""
    handler = RecordingHandler()
    one = session(handler)
    for more, known in ((b"<x@d7.example>", True), (b"<x@other.example>", False)):
        one.mail(b"<a@b.example>", (), macros())
        for number in range(1000):
            one.rcpt(b"<x@d%d.example>" % number)
        one.rcpt(more)
        one.end_of_message(macros())
        finished = handler.transactions[-1].finished
        assert finished is not None
        assert (len(finished.rcpt_domains), finished.rcpt_known) == (1000, known)


@pytest.mark.parametrize(
    ("macro", "value"),
    [
        ("{auth_type}", "PLAIN"),
        ("{auth_authen}", " "),
        ("{auth_author}", "alice"),
        ("{verify}", "OK"),
        ("{cert_subject}", "/CN=alice"),
    ],
)
def test_what_looks_like_a_login_is_none(macro: str, value: str) -> None:
    """FWD-23: only `{auth_authen}` names a user; a certificate, a mechanism or AUTH= of MAIL (RFC
    4954 5) does not."""
    handler = RecordingHandler()
    one = session(handler, SessionOptions(trusted_daemons=frozenset({"MSA"})))
    assert send(one, mail={macro: value}) == MARKED
    assert handler.exempt == []


@pytest.mark.parametrize(
    ("version", "of_sendmail", "exempt"),
    [
        ("Postfix 3.7.11", True, False),
        ("Our Mail 3.7.11", True, False),
        ("8.17.1", True, True),
        ("", True, True),
        ("Postfix 3", False, True),
    ],
)
def test_a_file_of_sendmail_says_nothing_of_postfix(
    version: str, of_sendmail: bool, exempt: bool
) -> None:
    """FWD-22: a sendmail.cf left behind on a machine with Postfix."""
    handler = RecordingHandler()
    one = Session(
        handler,
        SessionOptions(trusted_daemons=frozenset({"MSA"}), daemons_of_sendmail=of_sendmail),
        name="c0",
    )
    one.connect("192.0.2.66", macros({"{daemon_name}": "MSA", "v": version}))
    send(one, mail={"v": version})
    assert bool(handler.exempt) == exempt


@pytest.mark.parametrize(
    ("version", "named"),
    [
        ("8.17.1.9/8.17.1.9/Debian-2+deb12u2", "sendmail"),
        ("8.14.4+Sun", "sendmail"),
        ("8.13.3 - Revision 2.007", "sendmail"),
        ("AIX7.2/8.14.4", "sendmail"),
        ("Postfix 3.7.11", "postfix"),
        ("postfix 3.9-20231112", "postfix"),
        ("Example Mail 3.7.11", ""),
        ("Mail2U 3.7.11", ""),
        ("A/B 8.1", ""),
        ("", ""),
        ("8", ""),
        (" 8.17.1", ""),
    ],
)
def test_the_mta_is_known_by_its_version(version: str, named: str) -> None:
    """MTA-07: postconf(5), mail_name and milter_macro_v: a Postfix of another name is no Sendmail,
    and pays for none of it."""
    assert mta_named(version) == named


def test_our_own_addresses_are_noticed() -> None:
    """docs/design.md, Reports: mail to or from our reporting address is told apart; only that is
    kept of the local parts."""
    handler = RecordingHandler()
    one = session(handler, SessionOptions(own_addresses=frozenset({b"dmarc@mx.example.com"})))
    one.mail(b"<DMARC@mx.example.com>", (), macros())
    one.rcpt(b"<v@example.com>")
    one.end_of_message(macros())
    one.mail(b"<>", (), macros())
    one.rcpt(b"<Dmarc@MX.example.com>")
    one.end_of_message(macros())
    tag = (  # the envelope sender of each report is its own
        b"+0123456789abcdef0123456789abcdef-0badcafe"
    )
    one.mail(b"<dmarc" + tag + b"@mx.example.com>", (), macros())
    one.rcpt(b"<v@example.com>")
    one.end_of_message(macros())
    one.mail(b"<>", (), macros())
    one.rcpt(b"<dmarc" + tag + b"@mx.example.com>")
    one.end_of_message(macros())
    assert [made.own for made in handler.transactions] == [
        Own(sender=True),
        Own(recipient=True),
    ] * 2


@pytest.mark.parametrize("step", ["begin", "headers", "body", "finish"])
@pytest.mark.parametrize(
    ("on_error", "expected"), [("tempfail", (TRY_LATER,)), ("accept", UNJUDGED)]
)
def test_our_own_failure_is_answered_as_configured(
    step: str, on_error: str, expected: tuple[Action, ...]
) -> None:
    """docs/design.md: never a refusal; logged with the queue id where there is one; the next
    message is not touched."""
    handler = RecordingHandler(breaks=step)
    one = session(handler, replace(SessionOptions(), on_error=on_error))
    assert send(one) == expected
    assert handler.failures[0][2].startswith(f"RuntimeError: {step}")
    if step in ("body", "finish"):
        assert handler.failures[0][0] == "4QUEUE"
    handler.breaks = ""
    assert send(one) == MARKED


SHORTAGES = [
    Shortage("no thread became free in time"),
    MemoryError(),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=repr)
@pytest.mark.parametrize("on_error", ["tempfail", "accept"])
@pytest.mark.parametrize("step", ["begin", "finish"])
def test_a_shortage_is_451_whatever_on_error_says(
    error: Exception, on_error: str, step: str
) -> None:
    """DOS-30 to DOS-32: others took it, so that a forgery must not get through for it; it has a
    code of its own."""
    handler = RecordingHandler(breaks=step, error=error)
    one = session(handler, replace(SessionOptions(), on_error=on_error))
    (reply,) = send(one)
    assert isinstance(reply, Reply)
    assert (reply.code, reply.enhanced) == (451, "4.3.2")
    assert handler.failures == []
    assert len(handler.shortages) == 1
    handler.breaks = ""
    assert send(one) == MARKED


@pytest.mark.parametrize("error", [*SHORTAGES, ValueError("a defect")], ids=repr)
@pytest.mark.parametrize("step", ["begin", "headers", "body", "finish"])
@pytest.mark.parametrize("on_error", ["tempfail", "accept"])
def test_monitor_mode_delivers_whatever_went_wrong(
    error: Exception, step: str, on_error: str
) -> None:
    """DOS-42, DOS-43: an administrator who watches expects that nothing is refused or deferred;
    forged fields go, our field is set."""
    handler = RecordingHandler(breaks=step, error=error)
    options = replace(SessionOptions(), enforce=False, on_error=on_error)
    assert send(session(handler, options)) == UNJUDGED
    assert len(handler.passed) == 1
    assert (len(handler.shortages) == 1) is (error in SHORTAGES)
    assert bool(handler.failures) is (error not in SHORTAGES)


@pytest.mark.parametrize("step", ["begin", "headers", "body", "finish"])
def test_mail_from_a_trusted_relay_does_not_wait_for_room(step: str) -> None:
    """DOS-42: their queues must not fill; but a failure of ours follows on_error."""
    options = SessionOptions(trusted_relays=(ip_network("192.0.2.0/24"),))
    handler = RecordingHandler(breaks=step, error=SHORTAGES[0])
    assert send(session(handler, options)) == UNJUDGED
    assert len(handler.shortages) == 1
    assert send(session(RecordingHandler(breaks=step), options)) == (TRY_LATER,)


def test_an_exempt_message_gets_no_field_of_ours_when_something_fails() -> None:
    """It would not have been judged anyway."""
    handler = RecordingHandler()
    one = session(
        handler, SessionOptions(enforce=False, trusted_networks=(ip_network("192.0.2.0/24"),))
    )
    one.mail(b"<a@b.example>", (), macros())
    one.failed("callback", ValueError("x"))
    assert one.end_of_message(macros()) == STRIPPED
    assert handler.marked == []


def test_a_failure_before_a_shortage_is_still_our_failure() -> None:
    """on_error = "accept" is for those; what came first is what went wrong."""
    handler = RecordingHandler()
    one = session(handler)
    one.mail(b"<a@b.example>", (), macros())
    one.failed("callback", ValueError("x"))
    one.failed("callback", SHORTAGES[0])
    assert one.end_of_message(macros()) == (TRY_LATER,)


def test_a_failure_to_strip_is_a_temporary_one() -> None:
    """Accepting without removing what is forged is not an answer."""
    handler = RecordingHandler(breaks="pass_through")
    one = session(
        handler, SessionOptions(on_error="accept", trusted_networks=(ip_network("192.0.2.0/24"),))
    )
    assert send(one) == (TRY_LATER,)


def test_a_client_that_could_not_be_read_is_not_judged() -> None:
    """Without its address every message would look unauthenticated: that is our failure, not the
    sender's."""
    handler = RecordingHandler()
    one = Session(handler, SessionOptions(), name="c0")

    def broken(_name: str) -> str:
        raise RuntimeError("macros")

    one.connect("192.0.2.1", broken)
    for _ in range(2):
        assert send(one) == (TRY_LATER,)
    assert handler.failures[0][:2] == ("c0", "connect")


@pytest.mark.parametrize("why", ["broken", "overflow", "finish"])
def test_a_message_that_is_answered_without_a_verdict_asks_nothing_any_more(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its look-ups would go on until they are answered, at the cost of others' places."""
    monkeypatch.setattr("dmarc_milter.core.mail.header_collector.MAX_POSITIONS", 2)
    handler = RecordingHandler(breaks="finish" if why == "finish" else "")
    one = session(handler, SessionOptions(header_fields=1))
    one.mail(b"<one@attack.example>", (), macros())
    if why == "broken":
        one.failed("header", RuntimeError("broken"))
    fields = 9 if why == "overflow" else 1
    one.headers([(b"From", b" <first@legit.example>")] * fields)
    answer = one.end_of_message(macros())
    assert answer == ((TOO_MANY_FIELDS if why == "overflow" else TRY_LATER),)
    assert handler.transactions[0].finished is None
    assert handler.transactions[0].cancelled
    assert not one.in_message


def test_a_failing_cancel_does_not_reach_the_mta() -> None:
    handler = RecordingHandler(breaks="cancel")
    one = session(handler)
    one.mail(b"<a@b.example>", (), macros())
    one.abort()
    one.close()
    assert handler.failures[0][1] == "abort"


def test_a_failure_noted_by_the_adapter_counts() -> None:
    """What happens in the adapter's own code during a message is answered as on_error says too."""
    handler = RecordingHandler()
    one = session(handler)
    one.mail(b"<a@b.example>", (), macros())
    one.failed("callback", ValueError("x"))
    assert one.end_of_message(macros()) == (TRY_LATER,)


def test_the_body_is_not_wanted_where_nothing_needs_it() -> None:
    handler = RecordingHandler(wants_body=False)
    one = session(handler)
    one.mail(b"<a@b.example>", (), macros())
    one.end_of_headers(macros())
    assert one.body(b"x") is False


def test_header_limits_keep_what_must_be_removed() -> None:
    """docs/design.md: beyond the limits From, Authentication-Results and X-DMARC-Quarantine are
    still counted and kept."""
    handler = RecordingHandler()
    one = session(handler, SessionOptions(header_fields=3))
    send(
        one,
        *((b"X-A", b" b"),) * 5,
        (b"From", b" <a@b.example>"),
        (b"authentication-RESULTS ", b" mx.example.com; dmarc=pass"),
        (b"X-Dmarc-Quarantine", b" no"),
        (b"Subject", b" x"),
    )
    fields = handler.transactions[0].fields
    assert fields is not None
    assert fields.truncated
    assert [name.lower() for name, _ in fields] == [b"x-a"] * 3 + [
        b"from",
        b"authentication-results",
        b"x-dmarc-quarantine",
    ]


def test_removable_fields_without_end_are_only_counted() -> None:
    """A hundred thousand forged fields cost places, not octets; all of them stand there as ours."""
    handler = RecordingHandler()
    options = SessionOptions(
        header_bytes=1000, stand_ins={b"authentication-results": b" mx.example.com; none"}
    )
    one = session(handler, options)
    one.mail(b"<a@b.example>", (), macros())
    value = b" other.example; spf=pass" + b" x" * 20_000
    for _ in range(3000):
        one.header(b"Authentication-Results", value)
    one.end_of_headers(macros())
    fields = handler.transactions[0].fields
    assert fields is not None
    values = fields.values(b"authentication-results")
    assert len(values) == 3000
    assert sum(len(each) for each in set(values)) < 300_000
    assert values[-1] == b" mx.example.com; none"


def test_more_fields_than_can_be_counted_are_refused() -> None:
    """Not one of them may stay, and their places no longer fit: the only case in which we refuse
    without a policy."""
    handler = RecordingHandler()
    one = session(handler, SessionOptions(header_fields=1))
    one.mail(b"<a@b.example>", (), macros())
    for _ in range(100_003):
        one.header(b"Authentication-Results", b" x")
    assert one.end_of_message(macros()) == (TOO_MANY_FIELDS,)


def test_a_lost_field_leaves_signatures_unjudged() -> None:
    """HDR-04: a name that pymilter cannot decode never arrives; the header is not whole then."""
    handler = RecordingHandler()
    one = session(handler)
    one.mail(b"<a@b.example>", (), macros())
    one.header(b"From", b" <a@b.example>")
    one.header_lost()
    one.end_of_message(macros())
    fields = handler.transactions[0].fields
    assert fields is not None
    assert fields.truncated


EVENTS: tuple[Callable[[Session], object], ...] = (
    lambda one: one.connect("192.0.2.1", macros()),
    lambda one: one.helo("h.example"),
    lambda one: one.mail(b"<a@b.example>", (), macros()),
    lambda one: one.rcpt(b"<v@example.com>"),
    lambda one: one.header(b"From", b" <a@b.example>"),
    lambda one: one.end_of_headers(macros({"i": "4Q"})),
    lambda one: one.body(b"x\r\n"),
    lambda one: one.end_of_message(macros({"i": "4Q"})),
    lambda one: one.abort(),
    lambda one: one.close(),
)


@pytest.mark.parametrize("length", [2, 3, 4])
def test_events_in_any_order_are_answered(length: int) -> None:
    """HDR-10: whatever comes first, nothing raises, and a message is answered exactly once by
    MARKED."""
    for order in itertools.permutations(EVENTS, length):
        handler = RecordingHandler()
        one = Session(handler, SessionOptions(), name="c0")
        answers = [answer for event in order if isinstance(answer := event(one), tuple)]
        assert all(answer == MARKED for answer in answers)
        assert handler.failures == []


@given(st.lists(st.sampled_from(EVENTS), max_size=30))
@settings(max_examples=200, deadline=None)
def test_events_repeated_at_will_are_answered(order: list[Callable[[Session], object]]) -> None:
    """Fields given after the end of headers never reach a message already planned."""
    handler = RecordingHandler()
    one = Session(handler, SessionOptions(), name="c0")
    for event in order:
        event(one)
    assert handler.failures == []
    assert one.end_of_message(macros()) == MARKED


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60), st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_octets_are_taken(argument: bytes, name: bytes, value: bytes, helo: str) -> None:
    """FRM, HDR: no octets of an attacker raise, in any argument."""
    handler = RecordingHandler()
    one = Session(handler, SessionOptions(), name="c0")
    one.connect(helo, macros({"{client_addr}": helo}))
    one.helo(helo)
    one.mail(argument, (value,), macros({"i": helo, "{auth_authen}": ""}))
    one.rcpt(argument)
    one.header(name, value)
    assert one.end_of_message(macros({"i": helo})) == MARKED
    assert handler.failures == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("IPv6:2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[192.0.2.1]", "192.0.2.1"),
        ("", None),
        ("inet6:unknown", None),
        ("/var/run/x", None),
        ("1.2.3.4.5", None),
        ("٣.1.1.1", None),
    ],
)
def test_client_addresses_as_mtas_write_them(text: str, expected: str | None) -> None:
    """SPF-13: mapped addresses are IPv4, scope ids go, anything else is no address."""
    assert parse_address(text) == (ip_address(expected) if expected else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4ABC-x_9", "4ABC-x_9"), ("a b", ""), ("a\nb", ""), ("é", ""), ("x" * 65, ""), ("", "")],
)
def test_queue_ids_are_printable_words(text: str, expected: str) -> None:
    """LOG-01: the first word of a log line is never an attacker's."""
    assert queue_id(text) == expected


def test_the_answers_of_last_resort_are_valid() -> None:
    """FLT: internal failure is 451, never 5xx."""
    assert isinstance(TRY_LATER, Reply)
    assert TRY_LATER.code == 451

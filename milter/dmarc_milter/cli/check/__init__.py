"""`dmarc-milter check MESSAGE`: the same evaluation as at SMTP time, for a message in a file, each
step explained.

`check --from FOLDER|MBOX` is the other half: what is wrong with the From fields of stored mail,
without DNS.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
import uuid
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from dmarc_milter.cli.check import from_fields, message_file
from dmarc_milter.cli.check.envelope import CheckedDelivery, NotChecked, delivery
from dmarc_milter.cli.main import (
    EXIT_NO,
    EXIT_OK,
    EXIT_TEMPFAIL,
    EXIT_USAGE,
    add_config,
    load_or_defaults,
)
from dmarc_milter.cli.terminal import print_json
from dmarc_milter.config import core_options as compiled
from dmarc_milter.core.actions.plan import (
    Action,
    DeleteHeader,
    InsertHeader,
    Quarantine,
    Reply,
    plan_actions,
)
from dmarc_milter.core.authenticate import Options, authenticate, prepare
from dmarc_milter.core.dmarc.result import DmarcStatus
from dmarc_milter.core.dmarc.rewritten_from import Canonify
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.explain import explain
from dmarc_milter.core.mail import message
from dmarc_milter.core.mail.header_collector import Collector
from dmarc_milter.core.mail.ip_address import IPAddress, plain_address
from dmarc_milter.core.mail.message import Envelope, Headers
from dmarc_milter.core.policy.decide import Disposition
from dmarc_milter.core.resolver import Resolver
from dmarc_milter.core.spf.check import check as check_spf
from dmarc_milter.core.stored import Facts
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.daemon.startup import about_sendmail
from dmarc_milter.daemon.wiring import canonify, session_options
from dmarc_milter.dns.resolver import DnsResolver
from dmarc_milter.dns.suffix_list import SuffixListError, load_suffixes
from dmarc_milter.process.loop import Loop
from dmarc_milter.session.handler import SessionOptions
from dmarc_milter.session.session import client_behind_relay, within


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "message",
        type=Path,
        nargs="?",
        metavar="MESSAGE",
        help="a message file (RFC 5322, one message; - is standard input)",
    )
    parser.add_argument(
        "--ip",
        type=_ip,
        help=(
            "the SMTP client's address (default: client, HELO and sender as the message's topmost"
            " Received field from outside and its Return-Path tell them)"
        ),
    )
    parser.add_argument("--helo", default="", help="the name that it gave in EHLO")
    parser.add_argument(
        "--mail-from",
        metavar="ADDRESS",
        help='the envelope sender; "" or <> is the null sender, and so it is with --ip alone',
    )
    parser.add_argument(
        "--rcpt-to",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a recipient (may be repeated)",
    )
    parser.add_argument(
        "--from",
        type=Path,
        dest="stored",
        metavar="FOLDER|MBOX",
        help=(
            "instead of one message: how many From fields of this maildir, folder of .eml files or"
            " mbox are malformed, and how"
        ),
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of sentences")


def _ip(text: str) -> IPAddress:
    try:
        return plain_address(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address") from None


def run(arguments: argparse.Namespace) -> int:
    """0 when the message would be accepted unmarked, 1 when it would be refused or quarantined, 75
    when the DNS left it open."""
    if arguments.stored is not None and arguments.message is None:
        return from_fields.run(arguments.stored, as_json=arguments.json)
    if arguments.stored is not None or arguments.message is None:
        print(
            "dmarc-milter: check takes MESSAGE, or --from FOLDER|MBOX alone",
            file=sys.stderr,
        )
        return EXIT_USAGE
    return _evaluated(arguments)


def _evaluated(arguments: argparse.Namespace) -> int:
    config = load_or_defaults(arguments.config)
    try:
        file = message_file.read(arguments.message)
        options = compiled.options(config, load_suffixes(config.dmarc.suffix_list))
    except IsADirectoryError:
        text = "is a folder: name one of its mails; `check --from` looks at the authors of all"
        print(f"dmarc-milter: {arguments.message}: {text}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"dmarc-milter: {arguments.message}: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    except NotChecked as error:
        print(f"dmarc-milter: {arguments.message}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except SuffixListError as error:
        print(f"dmarc-milter: {error}", file=sys.stderr)
        return EXIT_USAGE
    session = session_options(config)
    headers, body = _collected(file.content, session)
    try:
        if not len(headers):
            raise NotChecked(message_file.NO_MAIL)
        sent = delivery(arguments, headers, session)
        sent = replace(sent, told=(*file.notes, *sent.told))
    except NotChecked as error:
        print(f"dmarc-milter: {arguments.message}: {error}", file=sys.stderr)
        return EXIT_USAGE
    envelope, exempt = sent.envelope, ""
    if within(sent.client, session.trusted_relays):
        envelope = client_behind_relay(envelope, headers, session)
    elif within(sent.client, session.trusted_networks):
        exempt = "trusted network"
    how = canonify(config)("sendmail" if about_sendmail(config) else "")
    dns = DnsResolver(Loop(), config.dns.nameservers, timeout=compiled.look_up_seconds(config))
    with closing(dns):
        resolver = dns.for_message(config.dns.budget, config.limits.dns_queries)
        evaluation = _evaluate(headers, body, envelope, resolver, options, how)
    keep = within(sent.client, session.keep_results_from)
    actions = plan_actions(evaluation, headers, compiled.marking(config), keep_results=keep)
    _print(arguments, sent, exempt, from_evaluation(evaluation), actions)
    return _code(evaluation, actions)


def _print(
    arguments: argparse.Namespace,
    sent: CheckedDelivery,
    exempt: str,
    facts: Facts,
    actions: tuple[Action, ...],
) -> None:
    if arguments.json:
        named = [_named(action) for action in actions]
        print_json({"exempt": exempt, "facts": facts, "actions": named})
        return
    if sent.told:
        print("\n".join((*sent.told, "")))
    if exempt:
        print(
            f"{sent.client} is in trusted_networks: the milter passes its mail through"
            " unevaluated. From outside it would be:"
        )
    print("\n".join(explain(facts)))
    print(_outcome(actions))


def _code(evaluation: Evaluation, actions: tuple[Action, ...]) -> int:
    verdict = evaluation.verdict
    if any(isinstance(action, Reply) and action.code >= 500 for action in actions):
        return EXIT_NO
    if not verdict.tempfail and verdict.disposition in (Disposition.REJECT, Disposition.QUARANTINE):
        return EXIT_NO
    return (
        EXIT_TEMPFAIL
        if verdict.tempfail or evaluation.dmarc.status is DmarcStatus.TEMPERROR
        else EXIT_OK
    )


def _collected(raw: bytes, options: SessionOptions) -> tuple[Headers, bytes]:
    """The header fields within the limits, as a session takes them, and the body."""
    fields, body = message.parse(raw)
    collector = Collector(options.header_bytes, options.header_fields, options.stand_ins)
    for name, value in fields:
        collector.add(name, value)
    return collector.headers(), body


def _evaluate(
    headers: Headers,
    body: bytes,
    envelope: Envelope,
    resolver: Resolver,
    options: Options,
    how: Canonify | None,
) -> Evaluation:
    """The evaluation of a message held in memory, as the session does it while the message
    arrives."""
    prepared = prepare(headers, resolver, options)
    prepared.hash(body)
    request = prepared.request(
        uuid.uuid4().hex,
        envelope,
        lambda: check_spf(envelope, resolver, options.spf),
        canonify=how,
    )
    return authenticate(request, resolver, options, now=datetime.now(UTC), pct_draw=0.0)


def _named(action: Action) -> dict[str, object]:
    return {"action": type(action).__name__, **msgspec.to_builtins(action)}


def _outcome(actions: tuple[Action, ...]) -> str:
    """What the MTA would be asked to do, as lines."""
    lines = ["", "What the MTA is asked to do:"]
    for action in actions:
        match action:
            case Reply(code, enhanced, text):
                lines.append(f"  reply {code} {enhanced} {text}")
            case InsertHeader(name, value):
                lines.append(f"  add {name}:{value}".replace("\n", "\n  "))
            case DeleteHeader(name, index):
                lines.append(f"  delete {name}, number {index} of that name")
            case Quarantine(reason):
                lines.append(f"  hold the message: {reason}")
    return "\n".join(lines)

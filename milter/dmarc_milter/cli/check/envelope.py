"""Who sent a stored message: what `check` is told, and for the rest what the message itself tells
of its delivery here."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.ip_address import IPAddress
from dmarc_milter.core.mail.message import Envelope, Headers
from dmarc_milter.core.mail.path import recipient_domain, reverse_path
from dmarc_milter.core.mail.received import original_client
from dmarc_milter.core.text import visible
from dmarc_milter.session.handler import SessionOptions


class NotChecked(Exception):
    """`str()` is one line: why there is nothing to evaluate, and what to do."""


@dataclass(frozen=True, slots=True)
class CheckedDelivery:
    """One SMTP transaction as it was, or is supposed to have been. `told` says, a line each, what
    was read from the message."""

    client: IPAddress
    envelope: Envelope
    told: tuple[str, ...] = ()


def delivery(
    arguments: argparse.Namespace, headers: Headers, options: SessionOptions
) -> CheckedDelivery:
    """From --ip, --helo, --mail-from and --rcpt-to; without --ip the client and HELO of the topmost
    Received field that names a host outside, without --mail-from the Return-Path. Raises
    NotChecked.
    """
    client, helo, told = arguments.ip, arguments.helo or "", list[str]()
    if client is None:
        hop = original_client(
            headers.values(b"received"), options.trusted_networks + options.trusted_relays
        )
        if hop is None:
            raise NotChecked(
                "no Received field names a client outside trusted_networks and trusted_relays: say"
                " who sent it with --ip (and --helo, --mail-from)"
            )
        client, helo = hop.address, arguments.helo or hop.helo
        told.append(f"Client {client}, HELO {_shown(helo)}: from the topmost Received field")
    sender = arguments.mail_from
    if sender is None:
        sender, line = _return_path(headers) if arguments.ip is None else ("", "")
        told += [line] * bool(line)
    return CheckedDelivery(client, _envelope(client, helo, sender, arguments.rcpt_to), tuple(told))


def _return_path(headers: Headers) -> tuple[str, str]:
    """The envelope sender that the final delivery wrote (RFC 5321 4.4), and what to say of it."""
    fields = headers.values(b"return-path")
    if not fields:
        return "", "Null sender <>: there is no Return-Path field; --mail-from gives another"
    found = fields[0].strip()
    return (
        found.decode("utf-8", "surrogateescape"),
        f"Sender {visible(found)[:200]}: from the Return-Path field",
    )


def _envelope(client: IPAddress, helo: str, sender: str, recipients: Collection[str]) -> Envelope:
    domains = list(_domains(recipients))
    return Envelope(
        source_ip=client,
        helo=helo,
        mail_from=reverse_path(sender.encode("utf-8", "surrogateescape")),
        rcpt_domains=tuple(dict.fromkeys(name for name in domains if isinstance(name, Domain))),
        rcpt_known=all(isinstance(name, Domain) for name in domains),
    )


def _domains(recipients: Collection[str]) -> Iterator[object]:
    for recipient in recipients:
        yield recipient_domain(recipient.encode("utf-8", "surrogateescape"))


def _shown(helo: str) -> str:
    return visible(helo.encode("utf-8", "surrogateescape"))[:200] or "not given"

"""What the reader asked for in the address: the period, the page, the search form."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import replace

from flask import request

from dmarc_milter.core.explain.done import DONE, STOPPED, WOULD_BE
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.ip_address import plain_address
from dmarc_milter.ledger.store.decisions import Filter
from dmarc_milter.web.words import PERIODS


def chosen_days() -> int:
    """The period that the reader chose; a week where the parameter is missing or odd."""
    days = request.args.get("days", "7")
    return int(days) if days in map(str, PERIODS) else 7


def asked_days() -> int | None:
    """The period that the reader chose, which links keep; None where he has not."""
    return chosen_days() if request.args.get("days") else None


def chosen_page() -> int:
    page = request.args.get("page", "1")
    return (
        int(page) if page.isascii() and page.isdecimal() and 0 < len(page) <= 4 and int(page) else 1
    )


OUTCOMES = {
    **{DONE[stored]: ("disposition", stored) for stored in STOPPED},
    **{word: ("would_be", stored) for stored, word in WOULD_BE.items()},
    "delivered": ("delivered", ""),
}
"""What the search form calls what was done: the column of Filter and its value."""
OUTCOME_WORDS = (
    "delivered",
    "refused",
    "quarantined",
    "deferred",
    *(word for word in OUTCOMES if " " in word),
)


def search_filter(since: int) -> Filter:
    """What the search form asks for; odd values find nothing rather than failing."""
    wanted = Filter(since=since)
    asked = {
        name: request.args.get(name, "")[:255].strip().lower()
        for name in ("author_domain", "source_ip", "status")
    }
    column, value = OUTCOMES.get(chosen_outcome(), ("disposition", chosen_outcome()))
    if column == "delivered":
        wanted = replace(wanted, delivered=True)
    else:
        asked[column] = value
    asked["author_domain"] = domain.as_stored(asked["author_domain"])
    with contextlib.suppress(ValueError):
        asked["source_ip"] = str(plain_address(ipaddress.ip_address(asked["source_ip"])))
    return replace(wanted, **asked)  # type: ignore[arg-type]  # fields that are text


def chosen_outcome() -> str:
    return request.args.get("disposition", "")[:255].strip().lower()

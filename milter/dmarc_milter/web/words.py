"""How values are written on every page, and what every page may say."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from flask import Flask
from markupsafe import Markup, escape

from dmarc_milter import __version__
from dmarc_milter.core.deferrals import deferral_text
from dmarc_milter.core.explain import sentence
from dmarc_milter.core.explain.deferral_rule import rule
from dmarc_milter.core.explain.done import became, done
from dmarc_milter.ledger.store.decisions import Waiting

PERIODS = (1, 7, 14, 30, 90)
NAVIGATION = (
    ("overview", "Overview", ""),
    ("decisions", "Decisions", "decision"),
    ("domains", "Author domains", "domain"),
    ("impact", "Impact", ""),
    ("reports", "Reports", "report"),
    ("health", "Health", ""),
)
"""Page, its name, and the page that belongs below it."""
NO_BREAK = "\N{NO-BREAK SPACE}"
MILLION = 1_000_000
LONGEST_WORD = 48
"""Characters of a word that a list shows whole."""
LEVELS = {
    "ok": "ok",
    "note": "note",
    "warning": "warning",
    "unknown": "not known",
    "error": "problem",
}
"""What the colour of a light means, for whoever does not see it."""


def add_words(app: Flask, clock: Callable[[], float]) -> None:
    """Filters and globals of the templates."""
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(
        time=_time,
        day=lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d"),
        number=lambda value: f"{value:,}",
        percent=percent,
        figure=figure,
        short=short,
        address=address,
        sentence=sentence,
        done=became,
        explained=_explained,
        rule=lambda waits: rule(waits.author_domain, waits.reason, waits.failing_name, clock()),
        level=LEVELS.__getitem__,
    )
    app.jinja_env.globals.update(
        version=__version__, periods=PERIODS, navigation=NAVIGATION, became=done
    )


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S") if at else "never"


def figure(number: int) -> str:
    """A number that must fit a card or the edge of a chart."""
    if number < MILLION:
        return f"{number:,}"
    digits = 1 if number < 100 * MILLION and number % MILLION else 0
    return f"{number / MILLION:,.{digits}f}{NO_BREAK}M"


def clipped(text: str) -> str:
    """`text` with the middle left out of words that nobody reads to their end: a domain name may
    have 253 characters, and its last labels say whose it is."""
    return re.sub(
        rf"\S{{{LONGEST_WORD + 1},}}",
        lambda word: f"{word[0][:16]}\N{HORIZONTAL ELLIPSIS}{word[0][-26:]}",
        text,
    )


def short(text: str) -> Markup:
    """As a list shows it: clipped, the whole of it where the pointer rests."""
    seen = clipped(text)
    return Markup('<span title="{}">{}</span>').format(text, seen) if seen != text else escape(text)


def address(text: str) -> Markup:
    """A client's address, which may be broken after its colons."""
    return escape(text).replace(":", Markup(":<wbr>"))


def percent(share: float) -> str:
    """With as many digits as tell something: 0 and 100 are said of nothing and of all alone."""
    if 0 < share < 0.1:
        return f"< 0.1{NO_BREAK}%"
    if 99.9 < share < 100:
        return f"> 99.9{NO_BREAK}%"
    digits = 0 if share in (0, 100) else 1
    return f"{share:.{digits}f}{NO_BREAK}%"


def _explained(waits: Waiting) -> str:
    return deferral_text(waits.reason, waits.failing_name)

"""Numbers and moments as strangers' reports have them: whole numbers by the schema, and much else
in practice."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from dmarc_milter.core.report.budget import Words

MOST = 10**15
"""What is larger was not counted by anybody."""
MUCH = 10**9
LATEST = 253_402_300_799
"""The last second of the year 9999, where calendars end."""
MILLISECONDS = 10**11
"""Seconds since 1970 are fewer until the year 5138."""
DECIMAL = re.compile(r"([+-]?)([0-9]{1,18})(?:\.([0-9]{0,18}))?(?:[eE]\+?([0-9]{1,2}))?")
GROUPED = re.compile(r"[0-9]{1,3}(?:[,'_ \u00a0\u202f][0-9]{3})+")


def whole(text: str, name: str, words: Words) -> int:
    """A number that is not negative; 0 where it cannot be read. What was wrong is reported."""
    if text.isascii() and text.isdecimal() and len(text) <= 15:
        number = int(text)
    elif GROUPED.fullmatch(text[:40]):
        number = int(re.sub(r"[^0-9]", "", text))
        words.say(f"{name}: {text[:40]} has signs between its digits")
    elif match := DECIMAL.fullmatch(text[:40]):
        number = _decimal(match)
        words.say(f"{name}: {text[:40]} is no whole number of the schema's form")
    else:
        words.say(f"{name}: {text[:40]} is no number" if text else f"{name}: there is none")
        return 0
    if number < 0 or number > MOST:
        words.say(f"{name}: {text[:40]} cannot be, 0 is shown")
        return 0
    return number


def _decimal(match: re.Match[str]) -> int:
    """Exact, without floating point: digits behind the exponent's reach are dropped."""
    power = min(int(match[4] or 0), 18)
    number = int(match[2] + (match[3] or "").ljust(power, "0")[:power])
    return -number if match[1] == "-" else number


def count(text: str, words: Words) -> int:
    """Messages of a row."""
    number = whole(text, "count", words)
    if number >= MUCH:
        words.say(f"count: {number} messages in one row are hard to believe")
    return number


def moment(text: str, name: str, words: Words) -> int:
    """Seconds since 1970."""
    if re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        try:
            when = datetime.fromisoformat(text[:40])
            words.say(f"{name}: {text[:40]} is no number of seconds since 1970")
            return max(0, int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()))
        except (ValueError, OverflowError):
            pass
    number = whole(text, name, words)
    if number > MILLISECONDS:
        words.say(f"{name}: {text[:40]} was taken for milliseconds")
        number //= 1000
    if number > LATEST:
        words.say(f"{name}: {text[:40]} is beyond all calendars")
    return min(number, LATEST)

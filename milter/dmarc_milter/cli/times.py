"""Times as people write them on a command line; all of them UTC."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta

AGO = re.compile(r"([0-9]{1,6})([mhdw])")
MOST = 100_000
UNITS = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
ALLOWED = 'YYYY-MM-DD, "YYYY-MM-DD HH:MM", today, yesterday, or an age such as 30m, 6h, 2d, 1w'


def parse_time(text: str, *, now: datetime | None = None) -> int:
    """Seconds since 1970. Raises argparse.ArgumentTypeError, which says what is allowed."""
    now = now or datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    words = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}
    try:
        if text in words:
            time = words[text]
        elif ago := AGO.fullmatch(text):
            time = now - int(ago[1]) * UNITS[ago[2]]
        else:
            time = datetime.fromisoformat(text)
            time = time if time.tzinfo else time.replace(tzinfo=UTC)
        return max(0, int(time.timestamp()))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a valid time; allowed: {ALLOWED}"
        ) from None


def parse_end(text: str, *, now: datetime | None = None) -> int:
    """A time to come, or how long from now: seconds since 1970. Raises argparse.ArgumentTypeError,
    which says what is allowed."""
    now = now or datetime.now(UTC)
    try:
        if long := AGO.fullmatch(text):
            end = now + int(long[1]) * UNITS[long[2]]
        else:
            end = datetime.fromisoformat(text)
            end = end if end.tzinfo else end.replace(tzinfo=UTC)
        if end > now:
            return int(end.timestamp())
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(
        f'{text!r} is not a time to come; allowed: YYYY-MM-DD, "YYYY-MM-DD HH:MM", or how long,'
        " such as 6h, 30d, 8w"
    )


def count(text: str) -> int:
    """A number from 1 to MOST. Raises argparse.ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 6 and 1 <= int(text) <= MOST):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST}")
    return int(text)


def shown(seconds: float) -> str:
    """A stored time, for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")

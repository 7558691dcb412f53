"""Reply codes (RFC 5321 4.2) and enhanced status codes (RFC 3463) in a line that any mail system
wrote, as against sizes, dates, versions and telephone numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

MAX_LINE = 2000
"""Characters of a line that are looked at."""
MAX_NUMBERS = 20
"""Numbers of a line that are looked at."""
REPLY = re.compile(r"(?<![\w.,@+-])([45][0-9][0-9])(?![\w@%/]|[.,:]\d)")
ENHANCED = re.compile(
    r"(?:(?<![\w.,:/@+-])|(?<=[45]\d\d-)|(?<=[A-Za-z]:))([245]\.[0-7]\.\d{1,3})(?![\w/@%]|[.,:]\d|-[\w.])"
)
CODE = re.compile(f"{REPLY.pattern}|{ENHANCED.pattern}")
BEGINS = re.compile(
    r"(?:^|[:;()\[\]<>\"'#|=]|\.\.\.|\S@\S+"
    r" {1,8}-?|\b(?:error|code|status|smtp|esmtp|reply|response|said|returned|with))"
    r"[\s<>*|(\[\"'#=-]{0,20}$",
    re.IGNORECASE,
)
"""What stands before a reply code that begins a reply."""
ALONE = re.compile(
    r"(?:^|\b(?:error|codes?|status|e?smtp|reply|replied|response|responded|said|says|returned|reason|diagnostics?|was|result|answer(?:ed)?)"
    r"|\S@\S+)[\s<>*|(\[\"'#=:;-]{0,20}$",
    re.IGNORECASE,
)
"""The same for a reply code with nothing behind it."""
NUMBERED = re.compile(
    r"\b(?:size|lines?|bytes|octets|messages|port|count|total|number|limit|quota|tel|telephone|phone|mobile|fax|room|ext|id|nr|ticket|case|ref)"
    r"\.?\s*[:=#]?\s*$",
    re.IGNORECASE,
)
"""What says that a number is no reply code."""
MEASURED = re.compile(
    r"\s*(?:[kmgt]i?b|bytes|octets|messages|mails|e-?mails|items|days|hours|minutes|seconds|percent|pages)\b|\s*[\u20ac$\u00a3%]"
    r"|\s+(?:[\w'.-]+\s+){1,3}(?:street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr|square|suite|floor|way|place|plaza)\b"
    r"|\s*,?\s*(?:rue|via|calle|avenida|avenue|boulevard)\s",
    re.IGNORECASE,
)
RELEASE = re.compile(
    r"(?:\b(?:version|vers?|v|release|rel|build|revision|patch|sendmail|exim|postfix|qmail|domino|notes|lotus|imail|mdaemon|mailenable|exchange"
    r"|exchange"
    r" server|perl|python|php|apache|openssl|tls|kernel|linux|software"
    r"|spamassassin|amavisd?|clamav|zimbra|dovecot|courier"
    r"|communigate|pro|esmtp server|smtp server v)|\bv)[\s:=.(]{0,3}$",
    re.IGNORECASE,
)
"""What says that three numbers are a program's version."""
DATED = re.compile(
    r"\b(?:on|am|vom|bis|until|till|since|seit|from|to|by|ab|le|du|au|el|del|al|den|dem|dated?|datum|zum|der|und|and|through|before|after|back"
    r"|(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?|montag|dienstag|mittwoch|donnerstag|freitag|samstag|sonntag|mo|di|mi|do|fr|sa|so)"
    r"[.,:]?\s{0,3}$",
    re.IGNORECASE,
)
DATES_ON = re.compile(
    r"\s*(?:[-\u2013]|bis|to|until|and|und)\s*\d{1,2}\.\d|,?\s+(?:at\s+|um\s+)?\d{1,2}[:.]\d{2}\b"
)


class Code(NamedTuple):
    """A code in a line: its text, e.g. "5.1.1", where it stands, and whether it says that trying
    again may help."""

    text: str
    start: int
    temporary: bool


def codes(line: str) -> Iterator[Code]:
    """The codes of one line, in order. Numbers of versions, addresses, dates, sizes and telephones
    are none."""
    line = line[:MAX_LINE]
    for match in islice(CODE.finditer(line), MAX_NUMBERS):
        before, after = (
            line[max(0, match.start() - 40) : match.start()],
            line[match.end() : match.end() + 60],
        )
        if _is_reply(match[1], before, after) if match[1] else _is_status(before, after):
            yield Code(match[0], match.start(), match[0].startswith("4"))


def _is_reply(code: str, before: str, after: str) -> bool:
    """Whether three digits begin a reply: nothing but marks or such a word before them, text or
    another code behind them."""
    if not BEGINS.search(before) or NUMBERED.search(before) or MEASURED.match(after):
        return False
    rest = after.lstrip(" \t-#(")
    if not rest.strip("\"')]>.,;: "):
        return ALONE.search(before) is not None
    if code.endswith("00") and not rest[:1].isdecimal():
        return False  # as often a round number, and never said of a recipient
    return (
        not rest[:1].isdecimal()
        or rest.startswith(code)
        or re.match(r"[245]\.\d{1,3}\.\d{1,3}\b", rest) is not None
    )


def _is_status(before: str, after: str) -> bool:
    return not (RELEASE.search(before) or DATED.search(before) or DATES_ON.match(after))


def judged(line: str) -> Code | None:
    """What a line says: its first code that fails; of a reply code and a status beside it that
    differ, the temporary one."""
    failing = (code for code in codes(line) if not code.text.startswith("2"))
    code = next(failing, None)
    beside = next(failing, None) if code is not None and not code.temporary else None
    if (
        code is not None
        and beside is not None
        and beside.temporary
        and beside.start - code.start - len(code.text) <= 3
    ):
        return beside
    return code


def status(text: str) -> str:
    """The first enhanced status code in a reply, or ""."""
    return next(iter(statuses(text)), "")


def statuses(text: str) -> list[str]:
    """The enhanced status codes in a line."""
    return [code.text for code in codes(text) if "." in code.text]

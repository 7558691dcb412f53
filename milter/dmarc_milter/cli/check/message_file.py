"""A message in a file, as administrators keep it: read whole, with what a mailbox or an editor put
around it taken away, or one line that says what it is instead."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dmarc_milter.cli.check.envelope import NotChecked
from dmarc_milter.mta.mailboxes import ASCTIME

MAX_BYTES = 256 << 20
"""Far more than any mail server takes; what has no end ends here."""
HEAD = 1 << 16
NO_MAIL = "is not a mail: it does not begin with header fields such as From"
FOREIGN = (
    (b"\x1f\x8b", "is compressed: `zcat {} | dmarc-milter check -`"),
    (b"BZh", "is compressed: `bzcat {} | dmarc-milter check -`"),
    (b"\xfd7zXZ\0", "is compressed: `xzcat {} | dmarc-milter check -`"),
    (b"\x28\xb5\x2f\xfd", "is compressed: `zstdcat {} | dmarc-milter check -`"),
    (b"PK\x03\x04", "is a ZIP archive: unpack it first"),
    (
        b"\xd0\xcf\x11\xe0",
        "is an Outlook file (.msg), which does not hold the mail as it was sent: take it from the"
        " server, or save it as .eml",
    ),
    (b"\xff\xfe", "is UTF-16 text, which no mail is: save it as it came, without conversion"),
    (b"\xfe\xff", "is UTF-16 text, which no mail is: save it as it came, without conversion"),
)
"""What a file begins with (file(1)), and what to do with it."""
BOM = b"\xef\xbb\xbf"
FIELD = re.compile(rb"([!-9;-~]{1,200})[ \t]{0,200}:")
KNOWN = re.compile(
    rb"(?im)^(?:from|to|cc|date|subject|sender|reply-to|message-id|received|return-path|mime-version"
    rb"|delivered-to|(?:x|arc|dkim|list|resent|content|authentication|received)-[!-9;-~]+)[ \t]*:"
)
"""A name that mails have: files of settings look alike but for that."""
MBOX = re.compile(rb"\n\r?\nFrom [^\r\n]{1,998}" + ASCTIME + rb"[^\r\n]{0,200}\r?\n")
QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
EMLX = re.compile(rb"([0-9]{1,10})[ \t]*\r?\n(?=[!-9;-~]+:)")


class MessageFile(NamedTuple):
    """`notes`, a line each: what was passed over."""

    content: bytes
    notes: tuple[str, ...] = ()


def read(path: Path) -> MessageFile:
    """`-` is standard input. Raises NotChecked, and OSError for what cannot be read."""
    if str(path) == "-":
        return _read(sys.stdin.buffer, path)
    with path.open("rb") as file:
        return _read(file, path)


def _read(file: BinaryIO, path: Path) -> MessageFile:
    head = file.read(HEAD)
    for magic, words in FOREIGN:
        if head.startswith(magic):
            raise NotChecked(words.format(shlex.quote(str(path))))
    if not _is_mail(head):
        raise NotChecked(NO_MAIL)
    content = head + file.read(MAX_BYTES + 1 - len(head))
    if len(content) > MAX_BYTES:
        raise NotChecked(f"has more than {MAX_BYTES >> 20} MB: no mail server takes such a mail")
    return _unwrapped(content)


def _is_mail(head: bytes) -> bool:
    start = head.removeprefix(BOM).lstrip(b"\r\n")
    if start.startswith((b"From ", b">From ")):
        start = start.partition(b"\n")[2]
    start = EMLX.sub(b"", start, count=1) if EMLX.match(start) else start
    fields = re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0].replace(b"\r", b"\n")
    return bool(FIELD.match(start) and KNOWN.search(fields))


def _unwrapped(content: bytes) -> MessageFile:
    notes = []
    if content.startswith(BOM):
        content = content.removeprefix(BOM)
        notes.append("A byte order mark before the first field, which an editor wrote: left out")
    if content.startswith((b"\r", b"\n")):
        content = content.lstrip(b"\r\n")
        notes.append("Empty lines before the first field: left out")
    if found := EMLX.match(content):  # Apple Mail: the mail's length before it, settings after it
        content = content[found.end() :][: int(found[1])]
    if content.startswith((b"From ", b">From ")):
        content, number = _first_of_mbox(content)
        if number > 1:
            notes.append(f"The first of {number} mails in this mbox; the others are not looked at")
    return MessageFile(content, tuple(notes))


def _first_of_mbox(content: bytes) -> tuple[bytes, int]:
    """Without its envelope line and without the quoting of lines that begin like one (mbox(5))."""
    rest = content.partition(b"\n")[2]
    ends = [found.start() for found in MBOX.finditer(rest)]
    first = rest[: ends[0] + 1] if ends else rest
    return QUOTED.sub(rb"\1", first), len(ends) + 1

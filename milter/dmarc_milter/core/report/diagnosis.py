"""What other mail systems say about a delivery: one reading for SMTP replies, fields of delivery
reports (RFC 3464) and plain text.

A reply code (RFC 5321 4.2) or an enhanced status code (RFC 3463) counts, and nothing else: words
are in every language.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Literal, NamedTuple

import idna

from dmarc_milter.core.report.reply_codes import MAX_LINE, Code, judged, status, statuses

Verdict = Literal["permanent", "temporary", "none"]

REACH = 3
"""Lines below the one that names the recipient where its code may stand; empty ones are not
counted."""
MAX_NAMED = 300
"""Lines that name the recipient."""
SPAN = 12
"""Lines, empty ones too, of which a code is looked for below a recipient."""
NO_SUCH_ADDRESS = frozenset(("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"))
"""Enhanced codes that speak of the recipient and of nothing else (RFC 3463, RFC 7505): as good as a
hard bounce."""
GONE = frozenset(("5.1.1", "5.1.10"))
"""Of these the ones that say that there is no such mailbox, or that its domain takes no mail: for
whatever report."""
UNSPECIFIC = "5.0.0"
REFUSED_RECIPIENT = ("550", "551", "553")
"""Replies to RCPT that speak of the recipient (RFC 5321 4.2.3)."""
AT_RCPT = re.compile(r"\bRCPT\s{0,3}TO\b", re.IGNORECASE)
"""What Postfix, Sendmail, Exim and others write of the command that was refused."""

HEADING = re.compile(
    r"[\s>*\u2022-]*(?:\[?(?:smtp|rfc822)[:;]\s*)?[<\"']*[^\s<>@\"']{1,64}@[^\s<>@\"']{1,255}[>\"':;.,\]]*\s*"
)
"""A line that is an address and nothing else: what follows is about that one."""
RETURNED_FIELDS = re.compile(
    r"(?:x-)?(?:received|return-path|dkim-signature|mime-version|content-type|arc-seal)\s?:",
    re.IGNORECASE,
)
RETURNED = (
    "below this line", "this is a copy", "a copy of", "returned message", "original message",
    "message header", "header of", "headers of",
    "unsent message", "start of", "beginning of", "undelivered message", "forwarded message",
    "included is a copy", "message text",
    "the header of", "the headers of", "the header and", "the body of",
)  # fmt: skip
FOLLOWS = (
    "undelivered message follows",
    "original message follows",
    "returned message follows",
    "unsent message follows",
)
"""Where the message that comes back begins: its fields, or a ruled line with such words."""
DELAYS = (
    "delayed", "delay reason", "delivery status notification (delay)", "warning message only",
    "do not need to resend",
    "don't need to resend",
    "will be retried", "will be tried again", "will be reattempted", "will be re-attempted",
    "still trying", "still being tried",
    "still being retried", "still undelivered", "still queued", "still in the queue",
    "will try again", "will retry again",
    "not yet been delivered", "has not been delivered yet", "could not be delivered yet",
    "could not yet be delivered",
    "message will continue", "no action is required", "transient non-fatal",
    "will be attempted again", "temporary failure",
    "verz\u00f6ger", "noch nicht zugestellt", "retard\u00e9", "retrasad", "ritardat",
    "\u0437\u0430\u0434\u0435\u0440\u0436",
    "\u9045\u5ef6", "\u5ef6\u8fdf",
)  # fmt: skip
"""A notice of a delay: nothing is decided yet."""
GOES_ON = re.compile(r"will (?:continue|keep) (?:to )?(?:be )?(?:try|tried|attempt|retry|deliver)")
DELAYED = re.compile(
    r"^[ \t>]{0,8}action[ \t]{0,4}:[ \t]{0,8}(?:delayed|relayed|delivered|expanded)", re.MULTILINE
)


class Judgement(NamedTuple):
    """`reason` is what it rests on, as it was written; unsafe to show as it is."""

    verdict: Verdict
    reason: str = ""


# --- addresses ------------------------------------------------------------------------------------


def plain_address(text: str) -> str:
    """An address out of a field of a delivery report, comparable: without type, brackets, comments,
    xtext (RFC 3461 4) or %XX."""
    text = re.sub(r"\([^()]*\)", "", text[:1000].lower())
    text = text.rpartition(";")[2].strip()
    if match := re.search(r"<([^<>]+)>", text):
        text = match[1]
    text = text.strip("<>\"' \t").removeprefix("mailto:")
    return re.sub(r"[+%]([0-9A-Fa-f]{2})", _octet, text).strip("<>\"' \t").rstrip(".")


def _octet(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in "+=%<>@ " else match[0]


class Name:
    """An address as it is looked for in text: in any case, in xtext, with %XX."""

    def __init__(self, address: str) -> None:
        self.address = address.strip().lower()
        hexed = {"+": "2b", "=": "3d", "%": "25"}
        self._unicode = _unicode(self.address)
        ways = {
            self.address,
            self._unicode,
            *("".join(mark + hexed[c] if c in hexed else c for c in self.address) for mark in "+%"),
        }
        words = "|".join(re.escape(way) for way in sorted(ways, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<![\w.+/-])(?:{words})(?![\w-]|\.\w)", re.IGNORECASE)

    def is_in(self, line: str) -> bool:
        return self.address.count("@") == 1 and self._pattern.search(line[:MAX_LINE]) is not None

    def is_also(self, text: str) -> bool:
        """Whether a field names it; "a+2Bb" is both an xtext and an address of its own."""
        bare = text[:1000].rpartition(";")[2].strip().strip("<>").lower()
        return bool(self.address) and not {self.address, self._unicode}.isdisjoint(
            (plain_address(text), bare)
        )


def _unicode(address: str) -> str:
    """The address with its domain in Unicode (RFC 5890), as systems that know RFC 6531 write it."""
    local, at, domain = address.rpartition("@")
    try:
        return local + at + idna.decode(domain) if "xn--" in domain else address
    except UnicodeError:
        return address


def is_gone(reason: str) -> bool:
    """Whether a reply, or what a bounce rests on, says that there is no such address, and nothing
    else beside it."""
    said = set(statuses(reason)) - {UNSPECIFIC}
    return bool(said) and said <= GONE


def refuses_recipient(reply: str) -> bool:
    """Whether a 5xx reply to RCPT speaks of that recipient: by its enhanced code, or without one by
    its reply code."""
    said = status(reply)
    return said in NO_SUCH_ADDRESS if said else reply.startswith(REFUSED_RECIPIENT)


# --- fields ---------------------------------------------------------------------------------------

FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,60})\s{0,4}:\s*(.*)")
KNOWN = {
    "reporting-mta", "dsn-gateway", "received-from-mta", "original-envelope-id", "arrival-date",
    "original-recipient", "final-recipient",
    "action", "status", "remote-mta", "diagnostic-code", "last-attempt-date", "final-log-id",
    "will-retry-until",
}  # fmt: skip
WHOM = ("final-recipient", "original-recipient")
SYSTEM_FAILURE = re.compile(r"x-unix\s*;\s*75\b", re.IGNORECASE)
"""EX_TEMPFAIL of a program."""


def recipients(text: str) -> list[dict[str, str]]:
    """The recipients of a delivery report, each with its fields by lower-case name.

    Some systems do not indent continuation lines, leave out the empty line between recipients, or
    put one between all fields.
    """
    blocks: list[dict[str, str]] = [{}]
    name, parted = "", False
    for line in text.splitlines():
        if not line.strip():
            parted, name = True, ""
            continue
        match = FIELD.match(line[:MAX_LINE])
        key = match[1].lower() if match else ""
        if match is None or not (key in KNOWN or key.startswith("x-")):
            if name and len(blocks[-1][name]) < MAX_LINE:
                blocks[-1][name] = f"{blocks[-1][name]} {line.strip()[:MAX_LINE]}"[:MAX_LINE]
            continue
        if _begins(key, blocks[-1], parted=parted) and len(blocks) < 100:
            blocks.append({})
        parted, name = False, key if key not in blocks[-1] else ""
        blocks[-1].setdefault(key, match[2].strip())
    return [recipient for recipient in blocks if "action" in recipient or "status" in recipient]


def _begins(key: str, fields: dict[str, str], *, parted: bool) -> bool:
    """Whether this field is another recipient's."""
    if key in fields and key in (*WHOM, "action"):
        return True
    return parted and key in WHOM and any(field in fields for field in (*WHOM, "action"))


def named(blocks: Sequence[dict[str, str]], name: Name) -> list[dict[str, str]]:
    """Those of the recipients that are this address."""
    return [
        recipient
        for recipient in blocks
        if any(name.is_also(recipient.get(field, "")) for field in WHOM)
    ]


def of_recipients(blocks: Sequence[dict[str, str]], name: Name) -> Judgement:
    """What a delivery report says of an address. Where it names others only, mail was passed on to
    them: they speak for it, together."""
    said = [of_fields(recipient) for recipient in named(blocks, name) or blocks]
    for verdict in ("temporary", "permanent"):
        if hit := next((judgement for judgement in said if judgement.verdict == verdict), None):
            return hit
    return said[0] if said else Judgement("none")


def of_fields(fields: dict[str, str]) -> Judgement:
    """One recipient. Permanent is what failed, or has no action, with a code that says so, and no
    temporary one."""
    action = fields.get("action", "").partition("(")[0].strip().lower()[:20]
    state, diagnostic = (
        fields.get("status", "").strip()[:20],
        fields.get("diagnostic-code", "")[:1000],
    )
    reason = " ".join(f"{action} {state} {diagnostic}".split())
    if action and not action.startswith("fail"):
        return Judgement("temporary", reason)
    said = _said(state), _said(diagnostic)
    if any(
        judgement is not None and (judgement.temporary or judgement.text.startswith("2"))
        for judgement in said
    ) or SYSTEM_FAILURE.match(diagnostic):
        return Judgement("temporary", reason)
    return Judgement("permanent" if any(said) else "none", reason)


def _said(text: str) -> Code | None:
    """A status or a diagnostic: `smtp; 550 5.1.1 ...`, or the reply that it quotes."""
    if match := re.match(r"\s*([245]\.\d{1,3}(?:\.\d{1,3})?)\b", text):
        return Code(match[1], 0, match[1].startswith("4"))
    return judged(text)


# --- text -----------------------------------------------------------------------------------------


def of_text(text: str, name: Name) -> Judgement:
    """What a notification without fields says of an address: the code on the line that names it, or
    on one of the next three.

    The nearest one decides, at the same distance the temporary one. A notice of a delay decides
    nothing.
    """
    lines = list(_before_the_message(text))
    if hit := delay("\n".join(lines)):
        return Judgement("temporary", f"a notice of a delay: {hit}")
    named = islice((number for number, line in enumerate(lines) if name.is_in(line)), MAX_NAMED)
    near = [clue for number in named if (clue := _near(lines, number, name))]
    if not near:
        return Judgement("none")
    _, permanent, line = min(near, key=lambda clue: clue[:2])
    return Judgement("permanent" if permanent else "temporary", " ".join(line.split()))


def delay(text: str) -> str:
    """The words by which a text, or a subject, tells of a delay, or ""."""
    text = text.lower()
    if hit := next((words for words in DELAYS if words in text), ""):
        return hit
    found = GOES_ON.search(text) or DELAYED.search(text)
    return found[0].strip() if found else ""


def _before_the_message(text: str) -> Iterable[str]:
    for line in text.splitlines():
        if not line:
            yield ""
            continue
        bare = line[:200].strip("> \t")
        ruled = bare.startswith(("--", "==", "__", "**"))
        words = bare.lstrip("-=_* \t").lower()
        if (
            RETURNED_FIELDS.match(bare)
            or (ruled and words.startswith(RETURNED))
            or words.startswith(FOLLOWS)
        ):
            return
        yield line[:MAX_LINE]


def _near(lines: list[str], number: int, name: Name) -> tuple[int, bool, str] | None:
    """(distance, whether permanent, the line) of the nearest code. A line that ends with a colon
    goes with the next one."""
    distance, introduced = 0, False
    for offset, line in enumerate(lines[number : number + SPAN]):
        if not line.strip():
            continue
        if offset:
            if HEADING.fullmatch(line) and not name.is_in(line):
                return None
            distance += not introduced
            introduced = line.rstrip().endswith(":")
        if distance > REACH:
            return None
        code = judged(line)
        if code is not None:
            return distance, not code.temporary, line
    return None

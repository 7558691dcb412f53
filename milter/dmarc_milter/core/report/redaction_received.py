"""Received fields (RFC 5321 4.4) without what names anybody: hosts, protocols, queue ids and dates
are recognised, all else goes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dmarc_milter.core.report.redaction_words import (
    DATE,
    HOST,
    IP,
    LITERAL,
    REDACTED,
    is_domain,
    one_mailbox,
)

# What may stand in a comment, and how much of it comes back.
MAX_BEHIND = 300
"""Characters behind a word that tell what it is."""
WORDS = re.compile(r"[()]|[^\s()]+")
CLAUSES = ("from", "by", "via", "with", "id", "for")
NAMED_HOST = re.compile(rf"(?:(?:\S*@)?({HOST}) ?|\S*@)?({LITERAL})(?: \(may be forged\))?")
UNKNOWN_HOST = re.compile(rf"(<unknown>|unknown) ?({LITERAL})")
BARE_HOST = re.compile(rf"(?:\S*@)?({IP})")
HELO = re.compile(rf"((?:HELO|EHLO) (?:{HOST}|{LITERAL}))")
EXIM = re.compile(
    rf"((?:{LITERAL})?(?: ?port=[0-9]+)?(?: ?helo=(?:{HOST}|{LITERAL}))?)(?: ?ident=.*)?", re.DOTALL
)
HARMLESS = re.compile(
    r"""(?: Postfix | OpenSMTPD | may[ ]be[ ]forged | TLS | SSL
      | [Nn]o[ ]client[ ]certificate[ ]requested
      | Exim[ ][0-9._]+ | [0-9][0-9.]*(?:/[0-9A-Za-z.+-]+)+
      | CommuniGate[ ]Pro[ ]SMTP[ ][0-9.a-z]+ | MDaemon[ ]PRO[ ]v[0-9.a-z]+
      | (?:Haraka|qpsmtpd)/[0-9A-Za-z.-]+ | amavisd-new,[ ]port[ ][0-9]+
      | qmail[ ][0-9]+[ ]invoked[ ](?:from[ ]network|by[ ]alias|for[ ]bounce)
      | authenticated[ ]bits=[0-9]+ | using[ ](?:TLS|SSL)v[0-9.]+[ ]with[ ]cipher[ ]
        [A-Z0-9_-]+[ ]\([0-9]+/[0-9]+[ ]bits\)
        (?:[ ](?:key-exchange|(?:server|client)-(?:signature|digest))[ ]
        [A-Za-z0-9_-]+(?:[ ]\([A-Za-z0-9 _-]{1,40}\))*)*
      | (?:(?:(?:version|cipher|bits)=[A-Za-z0-9_./-]+
        | verify=(?:OK|NO|NOT|NONE|YES|FAIL|SOFTWARE|TEMP|PROTOCOL|TRUSTED|CLEAR|BOTH))[,;]?[ ]?)+
      | TLS[0-9.v]+(?:[: ][A-Z0-9_-]+)* )""",
    re.VERBOSE,
)
PROTOCOL = re.compile(
    r"(?i:(?:utf8)?[el]?s?mtps?a?(?:[/-][A-Za-z0-9_/-]{1,60})?|local(?:-e?smtp)?|https?|qmqp|mapi|tls)|TLS_[A-Z0-9_]+|Microsoft|SMTP|Server"
)
IDENTIFIER = re.compile(r"[A-Za-z0-9_.+-]{1,128}")
# What a program on the host itself handed over. Also the only word for it of some MTAs.
LOCALLY = re.compile(r"(?i:\bwith local\b)")
SENDER = re.compile(r"(envelope-(?:from|sender)) (.*)", re.DOTALL)


def received(value: str, key: bytes) -> str:
    """The hand-over: hosts, protocol, queue id, date; the recipient's domain; no login, ident,
    certificate or comment of a person."""
    head, semicolon, date = value.rpartition(";")
    if not semicolon:
        head, date = date, ""
    kept = list(_hand_over(head, key))
    if semicolon:
        kept[-1:] = [f"{kept[-1]};"] if kept else [";"]
        kept.append(date.strip() if DATE.fullmatch(date.strip()) else REDACTED)
    return " ".join(kept)


def _hand_over(head: str, key: bytes) -> Iterator[str]:
    clause, words, position = "", 0, 0
    while match := WORDS.search(head, position):
        word, position = match[0], match.end()
        if word == "(":
            position, inner = _inside(head, match.start())
            yield _comment(inner, clause, key)
        elif word.lower() == "for":
            # All of it, to the end: a local part may hold any text.
            yield f"{word} <{_recipient(head[position:], key)}>"
            return
        elif word.lower() in CLAUSES and not (clause == "from" and not words):
            clause, words = word.lower(), 0
            yield word
        else:
            words += 1
            yield _word(word, clause, words, head[position : position + MAX_BEHIND])


def _inside(text: str, start: int) -> tuple[int, str]:
    """Where the comment that begins there ends, and what is in it; one without an end is all that
    is left."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.end(), text[start + 1 : match.start()].strip()
    return len(text), ""


def _word(word: str, clause: str, number: int, behind: str) -> str:
    """A word outside comments that is no keyword."""
    match clause:
        case "from" | "by":
            good = number == 1 and re.fullmatch(rf"{HOST}|{LITERAL}|{IP}", word) is not None
            good = good and not (clause == "from" and _is_user(word, behind))
        case "with" | "via":
            good = PROTOCOL.fullmatch(word) is not None
        case "id":
            good = IDENTIFIER.fullmatch(word) is not None and number == 1
        case _:
            good = False
    return word if good else REDACTED


def _is_user(word: str, behind: str) -> bool:
    """Whether what stands behind `from` may be a user of the host's own: `from root (helo=x)`,
    `from root by`, `from ada.lovelace by`."""
    if re.fullmatch(rf"{LITERAL}|{IP}", word):
        return False
    behind = behind.lstrip()
    if behind.startswith("("):
        return behind.startswith("(helo=")
    return LOCALLY.search(behind) is not None or not is_domain(word)


def _comment(inner: str, clause: str, key: bytes) -> str:
    if clause in ("", "from"):
        for form in (NAMED_HOST, UNKNOWN_HOST, BARE_HOST, HELO, EXIM):
            if inner and (match := form.fullmatch(inner)):
                return f"({' '.join(filter(None, match.groups())).strip()})"
    sender = SENDER.fullmatch(inner)
    if sender:
        return f"({sender[1]} <{one_mailbox(sender[2], key)}>)"
    label = re.match(r"(?i:authenticated sender:|auth:)", inner)
    if label:
        return f"({label[0]}{REDACTED})"
    host = clause == "by" and _is_by_host(inner)
    return f"({inner})" if inner and (host or HARMLESS.fullmatch(inner)) else f"({REDACTED})"


def _is_by_host(inner: str) -> bool:
    """An address, or a name with or without one."""
    if re.fullmatch(rf"{IP}|{LITERAL}", inner):
        return True
    name, _, address = inner.partition(" ")
    return is_domain(name) and (not address or re.fullmatch(LITERAL, address) is not None)


def _recipient(text: str, key: bytes) -> str:
    """The recipient's domain behind a replaced local part, where both can be told."""
    first = text.strip().partition(" (")[0]
    return one_mailbox(first, key)

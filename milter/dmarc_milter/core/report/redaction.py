"""The header of a message without what names anybody (RFC 6590): what is not known to be harmless
is left out.

Recipients, users and logins stand in a header in more forms than anyone lists, so nothing is
searched for and taken out. Each field is taken apart, and only the parts that are recognised come
back: hosts, addresses of hosts, protocols, results, domains.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32encode
from collections.abc import Callable, Iterator
from hashlib import sha256

from dmarc_milter.core.authres import field as authres
from dmarc_milter.core.mail.domain import Malformed
from dmarc_milter.core.mail.message import Headers
from dmarc_milter.core.text import printable

MAX_FIELDS = 200
MAX_FIELD = 2000
"""Octets of one field's value that are looked at."""
MAX_HEADERS = 32 * 1024
LINE, WORD = 70, 900
TOKEN = 12
REDACTED = "[redacted]"

ADDRESSES = frozenset(
    (
        *("from", "to", "cc", "bcc", "reply-to", "sender"),
        *(
            "return-path",
            "errors-to",
            "delivered-to",
            "x-original-to",
            "envelope-to",
            "disposition-notification-to",
        ),
        *(
            "resent-from",
            "resent-to",
            "resent-cc",
            "resent-bcc",
            "resent-sender",
            "resent-reply-to",
        ),
    )
)
"""Fields of which only the addresses stay, their local parts replaced."""

QUOTED = r'"(?:[^"\\]|\\.)*+"'
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]++"
HOST = r"[A-Za-z0-9._-]{1,255}"
IP = r"(?:[Ii][Pp]v6:)?[0-9A-Fa-f.:]{2,45}(?:%[A-Za-z0-9]{1,16})?"
LITERAL = rf"\[{IP}\](?::[0-9]{{1,5}})?"
# A mailbox, or whatever else: quoted-strings and comments are stepped over, since what is inside is
# no address.
MAILBOX = re.compile(
    rf"(?P<local>{QUOTED}|{ATOM})@(?P<host>{HOST})|\((?:[^()\\]|\\.)*+\)|{QUOTED}|{ATOM}|[^\"]",
    re.DOTALL,
)
LAST_MAILBOX = re.compile(rf"<?(?P<local>{QUOTED}|[^\s<>\"@]++)?@(?P<host>{HOST})>?", re.DOTALL)

# Received (RFC 5321 4.4). What may stand in a comment, and how much of it comes back.
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
    r"""(?: Postfix | OpenSMTPD | may[ ]be[ ]forged | [A-Z]{1,5}
      | [Nn]o[ ]client[ ]certificate[ ]requested
      | Exim[ ][0-9._]+ | [0-9][0-9.]*(?:/[0-9A-Za-z.+-]+)+
      | CommuniGate[ ]Pro[ ]SMTP[ ][0-9.a-z]+ | MDaemon[ ]PRO[ ]v[0-9.a-z]+
      | (?:Haraka|qpsmtpd)/[0-9A-Za-z.-]+ | amavisd-new,[ ]port[ ][0-9]+
      | qmail[ ][0-9]+[ ]invoked[ ](?:from[ ]network|by[ ]alias|for[ ]bounce)
      | authenticated[ ]bits=[0-9]+ | using[ ](?:TLS|SSL)v[0-9.]+[ ]with[ ]cipher[ ]
        [A-Z0-9_-]+[ ]\([0-9]+/[0-9]+[ ]bits\)
        (?:[ ](?:key-exchange|(?:server|client)-(?:signature|digest))[ ]
        [A-Za-z0-9_-]+(?:[ ]\([A-Za-z0-9 _-]{1,40}\))*)*
      | (?:(?:version|cipher|bits|verify)=[A-Za-z0-9_./-]+[,;]?[ ]?)+
      | TLS[0-9.v]+(?:[: ][A-Z0-9_-]+)* )""",
    re.VERBOSE,
)
PROTOCOL = re.compile(
    r"(?i:(?:utf8)?[el]?s?mtps?a?(?:[/-][A-Za-z0-9_/-]{1,60})?|local(?:-e?smtp)?|https?|qmqp|mapi|tls)|TLS_[A-Z0-9_]+|Microsoft|SMTP|Server"
)
IDENTIFIER = re.compile(r"[A-Za-z0-9_.+-]{1,128}")
SENDER = re.compile(r"(envelope-(?:from|sender)) (.*)", re.DOTALL)
DATE = re.compile(
    r"[A-Za-z]{0,3},? ?[0-9]{1,2} [A-Za-z]{3} [0-9]{2,4} [0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?"
    r"(?: [+-][0-9]{4}| [A-Z]{1,5})?(?: \([A-Z]{1,5}\))?"
)

# Signatures (RFC 6376 3.5, RFC 8617 4.1): the tags that say nothing of a person. z= copies the
# other fields.
TAGS = frozenset(("v", "a", "b", "bh", "c", "cv", "d", "h", "i", "l", "q", "s", "t", "x"))
TAG_VALUE = re.compile(r"[A-Za-z0-9+/=:._ -]*")
# Authentication-Results (RFC 8601 2.7) and Received-SPF (RFC 7208 9.1).
PLAIN_VALUE = re.compile(rf"{HOST}|{IP}|[A-Za-z0-9+/=_-]{{1,64}}")
NAMES_NOBODY = frozenset(
    (
        "header.d",
        "header.s",
        "header.b",
        "header.a",
        "header.from",
        "smtp.helo",
        "smtp.client-ip",
        "smtp.remote-ip",
    )
)
MAY_NAME = frozenset(("header.i", "header.from", "smtp.mailfrom", "smtp.mail"))
SPF_PAIRS = re.compile(
    rf"\b(client-ip|helo|identity|mechanism|envelope-from)=({QUOTED}@{HOST}|{QUOTED}|[^;\s]+)",
    re.DOTALL,
)
ONE_WORD = re.compile(r"[A-Za-z0-9.-]{1,40}")
PRODUCT = re.compile(r"[A-Za-z][A-Za-z0-9.-]{0,39}(?:/[0-9][0-9A-Za-z.]{0,19})?")
IDENTIFIERS = re.compile(r"<[^<>\s]+>|[^<>\s()]+")


def redacted(headers: Headers, key: bytes, limit: int = MAX_HEADERS) -> bytes:
    """The header block with every field's name and only harmless content: ASCII, CRLF, short lines,
    at most `limit` octets. Linear.

    `key` makes the replacements of local parts ours.
    """
    block = bytearray()
    for field in headers.fields[:MAX_FIELDS]:
        name = printable(field.name.decode("latin-1"), 76)
        line = folded(name, _value(name.lower(), field.value[:MAX_FIELD], key))
        if len(block) + len(line) > limit:
            break
        block += line
    return bytes(block)


def token(local: bytes, key: bytes) -> str:
    """The same for the same local part as long as the key stays, and telling nothing of it (RFC
    6590 3)."""
    digest = hmac.digest(key, local.lower(), sha256)
    return b32encode(digest)[:TOKEN].decode().lower()


def folded(name: str, value: str) -> bytes:
    """One field: folded at spaces, and where there is none for too long by force. No line has more
    than 998 octets (RFC 5322 2.1.1)."""
    lines = [f"{name}:"]
    for word in value.split(" "):
        if len(lines[-1]) + 1 + len(word) > LINE and len(lines[-1]) > len(name) + 1:
            lines.append("")
        for start in range(0, max(len(word), 1), WORD):
            if start:
                lines.append("")
            lines[-1] += " " + word[start : start + WORD]
    return "\r\n".join(lines).encode("ascii") + b"\r\n"


def _value(name: str, raw: bytes, key: bytes) -> str:
    value = " ".join(raw.decode("latin-1").split())
    keep = _mailboxes if name in ADDRESSES else KEPT.get(name)
    kept = keep(value, key) if keep else REDACTED
    return "".join(char if " " <= char <= "~" else "?" for char in kept) or REDACTED


def _mailboxes(value: str, key: bytes) -> str:
    """Each mailbox, its local part replaced. Nothing behind a quotation without an end."""
    kept, position = [], 0
    while found := MAILBOX.match(value, position):
        position = found.end()
        if found["host"]:
            kept.append(f"<{_named(found['local'], found['host'], key)}>")
    return ", ".join(kept)


def _named(local: str, host: str, key: bytes) -> str:
    return f"{token(local.encode('latin-1'), key)}@{host.lower()}"


def _one_mailbox(text: str, key: bytes) -> str:
    """A path or addr-spec, its local part replaced; a plain domain; else nothing that was there."""
    found = LAST_MAILBOX.fullmatch(text)
    if found:
        return (
            _named(found["local"], found["host"], key)
            if found["local"]
            else f"@{found['host'].lower()}"
        )
    bare = text.strip("<>")
    return bare.lower() if "." in bare and re.fullmatch(HOST, bare) else REDACTED


def _received(value: str, key: bytes) -> str:
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
    while found := WORDS.search(head, position):
        word, position = found[0], found.end()
        if word == "(":
            position, inner = _inside(head, found.start())
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
            yield _word(word, clause, words, head[position : position + 20])


def _inside(text: str, start: int) -> tuple[int, str]:
    """Where the comment that begins there ends, and what is in it; one without an end is all that
    is left."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.end(), text[start + 1 : found.start()].strip()
    return len(text), ""


def _word(word: str, clause: str, number: int, behind: str) -> str:
    """A word outside comments that is no keyword."""
    match clause:
        case "from" | "by":
            # `from root (helo=x)` and `from root by`: a user of the host's own
            user = (
                clause == "from"
                and "." not in word
                and not word.startswith("[")
                and not behind.lstrip().startswith("(")
            )
            user = user or (
                clause == "from"
                and behind.lstrip().startswith("(helo=")
                and not word.startswith("[")
            )
            good = (
                re.fullmatch(rf"{HOST}|{LITERAL}|{IP}", word) is not None
                and number == 1
                and not user
            )
        case "with" | "via":
            good = PROTOCOL.fullmatch(word) is not None
        case "id":
            good = IDENTIFIER.fullmatch(word) is not None and number == 1
        case _:
            good = False
    return word if good else REDACTED


def _comment(inner: str, clause: str, key: bytes) -> str:
    if clause in ("", "from"):
        for form in (NAMED_HOST, UNKNOWN_HOST, BARE_HOST, HELO, EXIM):
            if inner and (found := form.fullmatch(inner)):
                return f"({' '.join(filter(None, found.groups())).strip()})"
    sender = SENDER.fullmatch(inner)
    if sender:
        return f"({sender[1]} <{_one_mailbox(sender[2], key)}>)"
    label = re.match(r"(?i:authenticated sender:|auth:)", inner)
    if label:
        return f"({label[0]}{REDACTED})"
    host = clause == "by" and re.fullmatch(rf"{IP}|{LITERAL}|(?=.*\.){HOST}(?: {LITERAL})?", inner)
    return f"({inner})" if inner and (host or HARMLESS.fullmatch(inner)) else f"({REDACTED})"


def _recipient(text: str, key: bytes) -> str:
    """The recipient's domain behind a replaced local part, where both can be told."""
    first = text.strip().partition(" (")[0]
    return _one_mailbox(first, key)


def _signature(value: str, key: bytes) -> str:
    """Known tags with plain values; i= with its local part replaced."""
    kept = []
    for each in value.split(";"):
        name, equals, text = each.partition("=")
        tag, text = name.strip().lower(), text.strip()
        if tag == "i" and "@" in text:
            local, _, host = text.rpartition("@")
            text = _named(local, host, key) if local else text
            kept.append(
                f"{name.strip()}="
                f"{text if re.fullmatch(rf'(?:[a-z0-9]+)?@{HOST}', text) else REDACTED}"
            )
        elif tag in TAGS and equals:
            plain = TAG_VALUE.fullmatch(text) and (tag != "i" or text.isdigit())
            kept.append(f"{name.strip()}={text if plain else REDACTED}")
    return "; ".join(kept)


def _results(value: str, key: bytes) -> str:
    """The results with their domains, without comments and reasons."""
    read = authres.parse(value.encode("latin-1"))
    if isinstance(read, Malformed):
        return REDACTED
    instance = re.match(r"i ?= ?([0-9]{1,2}) ?;", value)
    head = read.authserv_id if re.fullmatch(HOST, read.authserv_id) else REDACTED
    kept = [f"i={instance[1]}"] if instance else []
    kept.append(head)
    for info in read.infos:
        words = [f"{info.method}={info.result}"]
        words += [
            f"{each.ptype}.{each.name}={_property(f'{each.ptype}.{each.name}', each.value, key)}"
            for each in info.properties
        ]
        kept.append(" ".join(words))
    return "; ".join(kept)


def _property(name: str, value: str, key: bytes) -> str:
    if name in MAY_NAME and "@" in value:
        return _one_mailbox(value, key)
    if name in NAMES_NOBODY and PLAIN_VALUE.fullmatch(value):
        return value
    plain = name in MAY_NAME and "." in value and re.fullmatch(HOST, value)
    return (
        value
        if plain or (name.startswith("policy.") and PLAIN_VALUE.fullmatch(value))
        else REDACTED
    )


def _received_spf(value: str, key: bytes) -> str:
    """The result and its key-value pairs; the comment and the receiver go."""
    result = re.match(r"[A-Za-z]{1,20}\b", value)
    pairs = []
    for found in SPF_PAIRS.finditer(value):
        name, text = found[1], found[2]
        if name == "envelope-from":
            text = _one_mailbox(
                (
                    text.strip('"')
                    if text.count("@") == 1 and text.startswith('"') and text.endswith('"')
                    else text
                ),
                key,
            )
        pairs.append(
            f"{name}={text if name == 'envelope-from' or PLAIN_VALUE.fullmatch(text) else REDACTED}"
        )
    return " ".join(([result[0]] if result else []) + ["; ".join(pairs)] * bool(pairs))


def _first(form: re.Pattern[str]) -> Callable[[str, bytes], str]:
    """The beginning of the value that has this form, and no more."""

    def keep(value: str, _key: bytes) -> str:
        found = form.match(value)
        return found[0] if found else REDACTED

    return keep


def _list_id(value: str, _key: bytes) -> str:
    """Without the phrase, which may name anybody (RFC 2919 3)."""
    found = re.search(rf"<{HOST}>\Z", value)
    return found[0] if found else REDACTED


KEPT: dict[str, Callable[[str, bytes], str]] = {
    "received": _received,
    "received-spf": _received_spf,
    "date": _first(DATE),
    "resent-date": _first(DATE),
    "message-id": _first(IDENTIFIERS),
    "resent-message-id": _first(IDENTIFIERS),
    "mime-version": _first(ONE_WORD),
    "content-transfer-encoding": _first(ONE_WORD),
    "content-type": _first(re.compile(r"[A-Za-z0-9.+-]{1,60}/[A-Za-z0-9.+-]{1,60}")),
    "dkim-signature": _signature,
    "arc-seal": _signature,
    "arc-message-signature": _signature,
    "authentication-results": _results,
    "arc-authentication-results": _results,
    "auto-submitted": _first(ONE_WORD),
    "precedence": _first(ONE_WORD),
    "list-id": _list_id,
    "user-agent": _first(PRODUCT),
    "x-mailer": _first(PRODUCT),
}
"""Fields of which something stays; identifiers whole, since the domain's owner finds the message by
them."""

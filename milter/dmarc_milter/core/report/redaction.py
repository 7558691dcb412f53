"""The header of a message without what names anybody (RFC 6590): what is not known to be harmless
is left out.

Recipients, users and logins stand in a header in more forms than anyone lists, so nothing is
searched for and taken out. Each field is taken apart, and only the parts that are recognised come
back: hosts, addresses of hosts, protocols, results, domains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain, islice

from dmarc_milter.core.authres import field as authres
from dmarc_milter.core.mail.domain import Malformed
from dmarc_milter.core.mail.message import HeaderField, Headers
from dmarc_milter.core.report.redaction_received import received
from dmarc_milter.core.report.redaction_words import (
    DATE,
    HOST,
    IP,
    QUOTED,
    REDACTED,
    is_domain,
    named,
    one_mailbox,
)

MAX_FIELDS = 200
MAX_FIELD = 2000
"""Bytes of one field's value that are looked at."""
MAX_HEADERS = 32 * 1024
LINE, WORD = 70, 900
MAX_NAMES = 500
"""Local parts for which identifiers are searched."""
SHORT, LONG = 4, 6
"""Characters of a local part that is searched for between other characters, and in any of them."""

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

ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]++"
# A mailbox, or whatever else: quoted-strings and comments are stepped over, since what is inside is
# no address.
MAILBOX = re.compile(
    rf"(?P<local>{QUOTED}|{ATOM})@(?P<host>{HOST}+)(?!@)|\((?:[^()\\]|\\.)*+\)|{QUOTED}|{ATOM}"
    rf'|[^"]',
    re.DOTALL,
)
FOR = re.compile(r"\bfor (?:<|(?=[^\s<>\"@]++@))([^\s<>\"@]++)")
NOT_PLAIN = re.compile(r"[^a-z0-9]+")
FIELD_NAME = re.compile(r"[A-Za-z0-9_-]{1,76}")

# Signatures (RFC 6376 3.5, RFC 8617 4.1): the tags that say nothing of a person. z= copies the
# other fields.
TAGS = {
    tag: re.compile(form)
    for tags, form in (
        ("v", r"1|DKIM1"),
        ("a", r"[A-Za-z0-9-]{1,20}"),
        ("b bh", r"[A-Za-z0-9+/= ]*"),
        ("c", r"(?i:simple|relaxed|nofws)(?:/(?i:simple|relaxed))?"),
        ("cv", r"(?i:none|pass|fail)"),
        ("d s", HOST),
        ("h", r"[A-Za-z0-9:._ -]*"),
        ("i l t x", r"[0-9]{1,20}"),
        ("q", r"dns(?:/txt)?"),
    )
    for tag in tags.split()
}
# Authentication-Results (RFC 8601 2.7) and Received-SPF (RFC 7208 9.1).
RESULTS = frozenset(
    (
        *("none", "pass", "fail", "softfail", "hardfail", "neutral", "policy", "temperror"),
        *("permerror", "bestguesspass", "error", "unknown", "discard", "nxdomain", "skipped"),
        *("invalid", "declined", "signed"),
    )
)
PROPERTIES = {
    name: re.compile(form)
    for names, form in (
        ("header.d header.from smtp.helo", HOST),
        ("header.s header.a header.b", r"[A-Za-z0-9+/=._-]{1,64}"),
        ("smtp.client-ip smtp.remote-ip policy.iprev", IP),
        (
            "policy.dmarc policy.published-domain-policy policy.applied-disposition"
            " policy.evaluated-disposition policy.override policy.arc-aware-result",
            r"none|pass|fail|quarantine|reject|local_policy|trusted_forwarder|mailing_list|other"
            r"|forwarded|sampled_out|policy_test_mode",
        ),
    )
    for name in names.split()
}
MAY_NAME = frozenset(("header.i", "header.from", "smtp.mailfrom", "smtp.mail"))
SPF_PAIRS = re.compile(
    rf"\b(client-ip|helo|identity|mechanism|envelope-from)=({QUOTED}@{HOST}|{QUOTED}|[^;\s]+)",
    re.DOTALL,
)
SPF_VALUES = {
    "client-ip": re.compile(IP),
    "helo": re.compile(rf"{HOST}|\[?{IP}\]?"),
    "identity": re.compile("mailfrom|helo|pra|none"),
    "mechanism": re.compile(
        rf"[-+~?]?(?:all|a|mx|ptr|ip4|ip6|include|exists|redirect|default|none)"
        rf"(?:[:=](?:{HOST}|{IP}))?(?:/[0-9/]{{1,8}})?"
    ),
}
PRODUCT = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9.-]{0,39}/[0-9][0-9A-Za-z.]{0,19}+"
    r"|Microsoft|Apple|iPhone|iPad|Android|Mozilla|Thunderbird|Evolution|KMail|Mutt|NeoMutt|Roundcube"
    r"|SquirrelMail|Zimbra|Sylpheed|Claws|Lotus|Foxmail|PHPMailer|Nodemailer|nodemailer|SOGoMail"
    r"|git-send-email|sendEmail|swaks|YahooMailWebService|WebService|Outlook)(?![^\s(;,])"
)
TYPE = r"text|multipart|message|application|image|audio|video|font|model"
IDENTIFIER = re.compile(
    rf"(<)?(?P<left>[^<>\s\"()@]{{0,400}}+)(?:@(?P<host>\[?{HOST}\]?))?(?(1)>)(?!\S)"
)


def redacted(headers: Headers, key: bytes, limit: int = MAX_HEADERS) -> bytes:
    """The header block with every field's name and only harmless content: ASCII, CRLF, short lines,
    at most `limit` bytes. Linear.

    `key` makes the replacements of local parts ours.
    """
    block = bytearray()
    names = {name: NOT_PLAIN.sub(".", f".{name}.") for name in _local_parts(headers)}
    for field in headers.fields[:MAX_FIELDS]:
        name = field.name.decode("latin-1")
        name = name if FIELD_NAME.fullmatch(name) else "X-Redacted"
        line = folded(name, _value(name.lower(), field.value[:MAX_FIELD], key, names))
        if len(block) + len(line) > limit:
            break
        block += line
    return bytes(block)


def _local_parts(headers: Headers) -> Iterator[str]:
    """Lower-case local parts of the addresses in the header, MAX_NAMES at most."""
    return islice(
        map(str.lower, chain.from_iterable(map(_named_in, headers.fields[:MAX_FIELDS]))), MAX_NAMES
    )


def _named_in(field: HeaderField) -> Iterator[str]:
    name = field.name.decode("latin-1").lower()
    if name in ADDRESSES:
        for local, _ in _addresses(_unfolded(field.value[:MAX_FIELD])):
            yield local.strip('"')
    elif name == "received":
        for match in FOR.finditer(_unfolded(field.value[:MAX_FIELD])):
            yield match[1]


def folded(name: str, value: str) -> bytes:
    """One field: folded at spaces, and where there is none for too long by force. No line has more
    than 998 bytes (RFC 5322 2.1.1)."""
    lines = [f"{name}:"]
    for word in value.split(" "):
        if len(lines[-1]) + 1 + len(word) > LINE and len(lines[-1]) > len(name) + 1:
            lines.append("")
        for start in range(0, max(len(word), 1), WORD):
            if start:
                lines.append("")
            lines[-1] += " " + word[start : start + WORD]
    return "\r\n".join(lines).encode("ascii") + b"\r\n"


def _unfolded(raw: bytes) -> str:
    return " ".join(raw.decode("latin-1").split())


def _value(name: str, raw: bytes, key: bytes, names: dict[str, str]) -> str:
    value = _unfolded(raw)
    if name in ("message-id", "resent-message-id"):
        kept = _identifier(value, key, names)
    else:
        keep = _mailboxes if name in ADDRESSES else KEPT.get(name)
        kept = keep(value, key) if keep else REDACTED
    return "".join(char if " " <= char <= "~" else "?" for char in kept) or REDACTED


def _addresses(value: str) -> Iterator[tuple[str, str]]:
    """Local part and host of each mailbox. Nothing behind a quotation without an end."""
    position = 0
    while match := MAILBOX.match(value, position):
        position = match.end()
        if match["host"]:
            yield match["local"], match["host"]


def _mailboxes(value: str, key: bytes) -> str:
    """Each mailbox, its local part replaced."""
    return ", ".join(f"<{named(local, host, key)}>" for local, host in _addresses(value))


def _identifier(value: str, key: bytes, names: dict[str, str]) -> str:
    """Whole, since the domain's owner finds the message by it, unless it names somebody whose
    address stands in the header."""
    match = IDENTIFIER.match(value)
    if match is None or not (match["host"] or re.search(r"[0-9]", match["left"])):
        return REDACTED
    left = match["left"].lower()
    dotted = NOT_PLAIN.sub(".", f".{left}.")
    letters = dotted.replace(".", "")
    for name, pieces in names.items():
        if name == left or (len(name) >= SHORT and pieces in dotted):
            break
        if len(name) >= LONG and pieces.replace(".", "") in letters:
            break
    else:
        return match[0]
    return f"<{named(left, match['host'], key)}>" if match["host"] else REDACTED


def _signature(value: str, key: bytes) -> str:
    """Known tags with plain values; i= with its local part replaced. Nothing behind a quotation
    without an end."""
    kept = []
    for part in value.split(";"):
        name, equals, text = part.partition("=")
        tag, text = name.strip().lower(), text.strip()
        if tag == "i" and "@" in text:
            local, _, host = text.rpartition("@")
            text = named(local, host, key) if local else text
            plain = re.fullmatch(rf"(?:[a-z0-9]+)?@{HOST}", text) is not None
        elif tag in TAGS and equals:
            plain = TAGS[tag].fullmatch(text) is not None
        else:
            plain = False
        if tag in TAGS and equals:
            kept.append(f"{name.strip()}={text if plain else REDACTED}")
        if part.count('"') % 2:
            break
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
        words = [f"{info.method}={info.result if info.result in RESULTS else REDACTED}"]
        words += [
            f"{item.ptype}.{item.name}={_property(f'{item.ptype}.{item.name}', item.value, key)}"
            for item in info.properties
        ]
        kept.append(" ".join(words))
    return "; ".join(kept)


def _property(name: str, value: str, key: bytes) -> str:
    if name in MAY_NAME and "@" in value:
        return one_mailbox(value, key)
    if name in ("smtp.mailfrom", "smtp.mail"):
        return value if is_domain(value) else REDACTED
    form = PROPERTIES.get(name)
    plain = form is not None and form.fullmatch(value) is not None
    return value if plain and (name != "header.from" or "." in value) else REDACTED


def _received_spf(value: str, key: bytes) -> str:
    """The result and its key-value pairs; the comment and the receiver go."""
    result = re.match(r"[A-Za-z]{1,20}\b", value)
    pairs = []
    for match in SPF_PAIRS.finditer(value):
        name, text = match[1], match[2]
        if name == "envelope-from":
            whole = text.count("@") == 1 and text.startswith('"') and text.endswith('"')
            text = one_mailbox(text.strip('"') if whole else text, key)
        elif not SPF_VALUES[name].fullmatch(text):
            text = REDACTED
        pairs.append(f"{name}={text}")
    word = result[0] if result is not None and result[0].lower() in RESULTS else ""
    return " ".join(filter(None, (word, "; ".join(pairs))))


def _first(form: re.Pattern[str]) -> Callable[[str, bytes], str]:
    """The beginning of the value that has this form, and no more."""

    def keep(value: str, _key: bytes) -> str:
        match = form.match(value)
        return match[0] if match else REDACTED

    return keep


def _list_id(value: str, _key: bytes) -> str:
    """Without the phrase, which may name anybody (RFC 2919 3)."""
    match = re.search(rf"<{HOST}>\Z", value)
    return match[0] if match else REDACTED


KEPT: dict[str, Callable[[str, bytes], str]] = {
    "received": received,
    "received-spf": _received_spf,
    "date": _first(DATE),
    "resent-date": _first(DATE),
    "mime-version": _first(re.compile(r"[0-9]\.[0-9]\b")),
    "content-transfer-encoding": _first(
        re.compile(r"(?i:7bit|8bit|binary|quoted-printable|base64)\b")
    ),
    "content-type": _first(re.compile(rf"(?i:{TYPE})/[A-Za-z0-9.+-]{{1,60}}")),
    "dkim-signature": _signature,
    "arc-seal": _signature,
    "arc-message-signature": _signature,
    "authentication-results": _results,
    "arc-authentication-results": _results,
    "auto-submitted": _first(
        re.compile(r"(?i:no|auto-generated|auto-replied|auto-notified)(?![^\s;(])")
    ),
    "precedence": _first(re.compile(r"(?i:bulk|list|junk|normal|first-class)(?![^\s(])")),
    "list-id": _list_id,
    "user-agent": _first(PRODUCT),
    "x-mailer": _first(PRODUCT),
}
"""Fields of which something stays; identifiers whole, since the domain's owner finds the message by
them."""

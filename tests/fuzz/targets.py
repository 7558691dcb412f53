"""What is fuzzed: each parser with what must be true of its result, and the session with the whole
core behind it."""

from __future__ import annotations

import contextlib
import re
from email.utils import getaddresses
from ipaddress import ip_network

from dmarc_milter.core import arc
from dmarc_milter.core.authres import field
from dmarc_milter.core.authres.forgery import may_be_taken_for_ours
from dmarc_milter.core.dkim import key, signature, tags
from dmarc_milter.core.dmarc import record
from dmarc_milter.core.mail import author, domain, received
from dmarc_milter.core.mail.domain import Domain, Malformed
from dmarc_milter.core.mail.message import parse as parse_message
from dmarc_milter.core.mail.path import recipient_domain, reverse_path
from dmarc_milter.core.spf import record as spf_record
from dmarc_milter.core.spf.check import check as check_spf
from dmarc_milter.dns import rdata, wire
from fakes import strict_authres
from fakes.dns_zone import Zone
from fakes.received import chain
from fakes.sealer import seal, seal_all
from fuzz.engine import Target
from fuzz.milter import MILTER_SEEDS, OFFER, milter_packets
from fuzz.through_session import ATTACK, ED, LEGIT, NOW, ZONE, scene, session, session_envelope

LETTER = (
    b"From: <admin@legit.example>\r\nTo: <v@example.com>\r\nSubject: Hello\r\nDate:"
    b" x\r\nMessage-ID: <1@x>\r\n\r\nHello.\r\n"
)
PLAIN_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[a-z0-9_.-]+")
PRINTABLE = re.compile(r"[ -~]*")


def from_field(octets: bytes) -> None:
    """Either a domain or a complaint; and where nothing is quoted or commented, no other reader
    sees another domain."""
    for fields in ([octets], [octets, octets]):
        found = author.author(fields)
        assert bool(found.domain) != bool(found.malformed)
        assert len(found.candidates) <= author.MAX_CANDIDATES
        assert not (found.domain and found.candidates)
        assert PRINTABLE.fullmatch(found.malformed)
    one = author.author([octets]).domain
    if one and octets.isascii() and not set(octets) & set(b'"(\\'):
        text = octets.decode().replace("\r\n", "")
        names = (
            domain.parse(each.rpartition("@")[2]) for _, each in getaddresses([text]) if "@" in each
        )
        seen = {each for each in names if isinstance(each, Domain)}
        assert seen <= {one}, seen


def path(octets: bytes) -> None:
    """Null, a domain or malformed; RCPT TO has the same domain, or none that is sure."""
    found = reverse_path(octets)
    assert found.is_null + bool(found.domain) + bool(found.malformed) == 1
    assert recipient_domain(octets) == found.domain or isinstance(
        recipient_domain(octets), Malformed
    )


def name(octets: bytes) -> None:
    """A domain reads again as itself, is ASCII, and fits into the DNS."""
    found = domain.parse(octets)
    if isinstance(found, Domain):
        assert domain.parse(found.name) == found
        assert re.fullmatch(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", found.name)
        assert len(found.name) <= 253
        domain.unicode_form(found)


def dkim_field(octets: bytes) -> None:
    """No exception; what is printed later is plain; b= is emptied and nothing else."""
    listed = tags.parse(octets)
    for of_arc in (False, True):
        found = signature.parse(octets, of_arc=of_arc)
        assert PRINTABLE.fullmatch(found.error + found.selector + found.algorithm + found.text)
        assert found.error or (
            found.domain and found.selector and found.octets and b"from" in found.names
        )
        if not isinstance(listed, Malformed) and found.unsigned:
            assert len(found.unsigned) <= len(octets)


def dkim_key(octets: bytes) -> None:
    """Within the bounds, or refused for a reason of ours; a key verifies nothing that is random."""
    found = key.parse(octets)
    if isinstance(found, Malformed):
        assert PRINTABLE.fullmatch(found.reason)
        return
    assert found.algorithm != "rsa-sha256" or 1024 <= found.bits <= 8192
    assert not found.verifies(octets[:256].ljust(64), bytes(32))


def dmarc_record(octets: bytes) -> None:
    """A record begins with its version; its addresses are plain; its text can be printed."""
    found = record.parse(octets)
    if found is not None:
        assert re.match(rb"v[ \t]*=[ \t]*DMARC1[ \t]*(;|$)", octets, re.IGNORECASE)
        assert len(found.rua) <= record.MAX_URIS
        assert len(found.ruf) <= record.MAX_URIS
        assert all(PLAIN_ADDRESS.fullmatch(each.address) for each in (*found.rua, *found.ruf))
        assert PRINTABLE.fullmatch(found.text)
        assert all(map(PRINTABLE.fullmatch, found.errors))


def results_field(octets: bytes) -> None:
    """What is read can be written and reads the same; a field that is strictly ours is always taken
    for ours."""
    found = field.parse(octets)
    if not isinstance(found, Malformed):
        infos = tuple(each for each in found.infos)
        written = field.format("mx.example.com", infos).encode()
        strict = strict_authres.parse(written)
        assert strict.authserv_id == "mx.example.com"
        assert [(each.method, each.result) for each in strict.results] == [
            (each.method, each.result) for each in infos
        ][: len(strict.results)]
    with contextlib.suppress(strict_authres.NotStrict, UnicodeDecodeError):
        if strict_authres.parse(octets).authserv_id.casefold() == "mx.example.com":
            assert may_be_taken_for_ours(octets, ["mx.example.com"])
    may_be_taken_for_ours(octets, ["mx.example.com", "straße.example"])


def arc_sets(octets: bytes) -> None:
    """A chain passes whole or fails; no more look-ups than allowed."""
    raw = octets.partition(b"\r\n\r\n")[0] + b"\r\n\r\nHello.\r\n"
    zone = Zone(ZONE)
    found = chain(raw, zone, now=NOW)
    assert (found.status is arc.ArcStatus.PASS) == bool(found.hops)
    assert len(zone.asked()) <= 20
    assert PRINTABLE.fullmatch(found.reason)


def received_field(octets: bytes) -> None:
    """A hop's address is an address; HELO stays text."""
    network = ip_network("192.0.2.0/24")
    hop = received.parse(octets)
    client = received.original_client([octets, octets], (network,))
    if isinstance(hop, Malformed):
        assert PRINTABLE.fullmatch(hop.reason)
        assert client is None
    else:
        assert client == (None if hop.address in network else hop)


def spf_text(octets: bytes) -> None:
    """A record is read or refused for a reason of ours, and evaluated without an exception."""
    found = spf_record.parse(octets, 512)
    if isinstance(found, Malformed):
        assert PRINTABLE.fullmatch(found.reason)
    spf_record.select([octets])
    zone = Zone({**ZONE, "attack.example": {"TXT": [octets]}})
    result = check_spf(session_envelope(), zone)
    assert PRINTABLE.fullmatch(result.reason + result.mechanism + result.record)


def question_of(rdtype: str) -> bytes:
    """In wire form."""
    encoded = wire.encode_question(("_dmarc.legit.example", rdtype))
    assert encoded
    return encoded


QUESTION = question_of("TXT")


def dns_wire(octets: bytes) -> None:
    """An answer, or one of two complaints; nothing beyond the packet is read."""
    for rdtype in ("TXT", "A", "AAAA", "MX", "PTR", "NS"):
        question = question_of(rdtype)
        for packet in (octets, octets[:12].ljust(12, b"\0") + question + octets[12:]):
            with contextlib.suppress(rdata.MalformedAnswer, wire.ServerRefused):
                if wire.is_answer_to(packet, packet[:2], question) and not wire.is_truncated(
                    packet
                ):
                    wire.denies_opt(packet, known=False)
                    found = wire.read_answer(packet, question, rdtype)
                    assert found.ttl >= 0


def message_file(octets: bytes) -> None:
    """What `check` reads from a file: every octet is in a field or in the body."""
    fields, body = parse_message(octets)
    assert all(each.name and not set(each.name) & set(b" \t\r\n:") for each in fields)
    assert sum(len(each.name) + len(each.value) for each in fields) + len(body) <= 2 * len(octets)


FROM_SEEDS = [
    b" Doe, John <john@legit.example>",
    b"g:a@attack.example,admin@legit.example;",
    b'"a@attack.example" <admin@legit.example> (c(d))',
    b"=?utf-8?Q?admin=40legit.example?= <a@attack.example>",
    b"<@legit.example:a@attack.example>",
    "用户 <用户@straße.example>".encode(),
]
DKIM_WORDS = [
    b"v=1;",
    b"a=rsa-sha256;",
    b"c=relaxed/simple;",
    b"d=",
    b"s=",
    b"h=from",
    b"i=@",
    b"l=",
    b"bh=",
    b"b=",
    b"x=",
    b"t=",
    b"q=dns/txt",
]
RESULT_SEEDS = [
    (
        b" mx.example.com; spf=pass smtp.mailfrom=a@b.example; dkim=pass (2048) header.d=b.example"
        b' header.i=@b.example; dmarc=fail reason="x"'
    ),
    b' "mx.example.com" 1 (c); none',
    b" i=1; mx.list.example; dmarc=pass (p=reject) header.from=legit.example; arc=none",
    "\u00a0ｍx.example.com; dmarc=pass".encode(),
]
RECORD_SEEDS = [
    (
        b"v=DMARC1; p=reject; sp=none; np=quarantine; adkim=s; aspf=r; pct=50; t=y; psd=n;"
        b" fo=1:d:s; ri=3600; rua=mailto:a@b.example!10m,https://x"
    ),
    (
        b"v = DMARC1 ; p = Reject ; rua=mailto:a%2Bb@b.example?subject=x , mailto:c@d.example ;"
        b" ruf=mailto:e@f.example"
    ),
]
SPF_SEEDS = [
    (
        b"v=spf1 include:%{d2}.a.example exists:%{ir}.%{v}._spf.%{d} a:b.example/24//64"
        b" mx ptr:c.example ip4:192.0.2.0/24 ip6:2001:db8::/32 -all"
    ),
    b"v=spf1 redirect=_spf.%{d} exp=x.%{h} foo=%{s}",
]
RECEIVED_SEEDS = [
    (
        b" from a.example (b.example [192.0.2.1]) by mx.example.com (Postfix) with ESMTP"
        b" id 1 for <v@example.com>; Thu, 1 Oct 2026 10:00:00 +0000"
    ),
    b" from [IPv6:2001:db8::1] (HELO x) (192.0.2.9) by y with SMTP; date",
]
DNS_SEEDS = [
    b"\x12\x34\x81\x80\0\1\0\1\0\0\0\0"
    + QUESTION
    + b"\xc0\x0c\0\x10\0\1\0\0\1\x2c\0\x12\x11v=DMARC1; p=none;",
    b"\x12\x34\x81\x83\0\1\0\0\0\1\0\0"
    + QUESTION
    + b"\x07example\0\0\6\0\1\0\0\0\x3c\0\x16\0\0"
    + b"\0" * 20,
    b"\x12\x34\x81\x80\0\1\0\2\0\0\0\0"
    + QUESTION
    + b"\xc0\x0c\0\5\0\1\0\0\1\x2c\0\2\xc0\x13\xc0\x13\0\x10\0\1\0\0\0\1\0\2\1x",
]

TARGETS = {
    each.name: each
    for each in (
        Target(
            "from",
            from_field,
            FROM_SEEDS,
            [b"a@legit.example", b"b@attack.example", b"<a@legit.example>"],
        ),
        Target(
            "path",
            path,
            [b"<a@legit.example>", b"<>", b'<"a b"@[192.0.2.1]>', b"<@a,@b:c@d.example>"],
        ),
        Target(
            "domain",
            name,
            [
                b"legit.example",
                "straße.example".encode(),
                b"xn--strae-oqa.example.",
                "a。b．c".encode(),
            ],
        ),
        Target(
            "dkim_field",
            dkim_field,
            [LEGIT.field(LETTER)[1], ED.field(LETTER, length=3)[1]],
            DKIM_WORDS,
        ),
        Target(
            "dkim_key",
            dkim_key,
            [
                LEGIT.record().encode(),
                ED.record("t=y:s; h=sha256; ").encode(),
                LEGIT.record().encode().replace(b"MIIB", b""),
            ],
        ),
        Target(
            "dmarc_record",
            dmarc_record,
            RECORD_SEEDS,
            [b"p=", b"sp=", b"rua=", b"mailto:", b"%40", b"%0d%0a", b"!", b"psd=y", b"t=y"],
        ),
        Target(
            "results",
            results_field,
            RESULT_SEEDS,
            [b"dmarc=pass", b"mx.example.com", b"header.from=", b"(", b"/1", b"reason="],
        ),
        Target(
            "arc",
            arc_sets,
            [seal(LETTER, LEGIT), seal_all(LETTER, LEGIT, ATTACK), seal(LETTER, ED)],
            [b"i=1;", b"i=2;", b"cv=pass;", b"cv=none;"],
        ),
        Target(
            "received",
            received_field,
            RECEIVED_SEEDS,
            [b"from ", b" by ", b"[192.0.2.1]", b"IPv6:", b"HELO", b"unknown"],
        ),
        Target(
            "spf",
            spf_text,
            SPF_SEEDS,
            [
                b"%{l}",
                b"%{d9r.-}",
                b"%%",
                b"%_",
                b"a:",
                b"mx:",
                b"ip4:",
                b"include:",
                b"redirect=",
                b"//64",
                b"/33",
            ],
        ),
        Target(
            "dns",
            dns_wire,
            DNS_SEEDS,
            [b"\xc0\x0c", b"\0\x10\0\1", b"\0\5\0\1", b"\xff\xff", b"\x3f"],
        ),
        Target(
            "message_file",
            message_file,
            [LETTER, LEGIT.sign(LETTER), b"From x Thu\nFrom: a\n b\n\nx"],
        ),
        Target(
            "protocol",
            milter_packets,
            MILTER_SEEDS,
            [OFFER, b"\0\0\0\1", b"\0\0\0\5", b"\xff\xff\xff\xff", b"\0\x10\0\1"],
        ),
        Target(
            "session",
            session,
            [
                scene(LETTER),
                scene(LEGIT.sign(LETTER)),
                scene(seal(ATTACK.sign(LETTER), LEGIT)),
                scene(LETTER, sender=b"<>"),
            ],
        ),
    )
}

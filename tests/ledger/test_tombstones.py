"""What a tombstone hides, and what that may cost: nothing for what came later, and for the rest a
number of hashes that grows with the text."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dmarc_milter.core.report.failure_sample import HeaderSample
from dmarc_milter.core.stored import DkimFact, decode
from dmarc_milter.ledger import tombstones
from dmarc_milter.ledger.tombstones import Target, Tombstones
from fakes.evaluations import NOON, evaluation
from fakes.stores import spool_row

NOW = int(NOON.timestamp())
LONG = ".".join(str(n % 10) for n in range(16_000))
"""A name of 16,000 labels."""
SECRET = b"secret"


def stones(kind: tombstones.Kind, value: str, at: int = NOW) -> Tombstones:
    return Tombstones(SECRET, [Tombstones(SECRET, ()).of(Target(kind, value), at)])


def sample(headers: bytes = b"", **fields: str) -> bytes:
    return msgspec.msgpack.encode(HeaderSample("dmarc", headers, **fields))


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was hashed."""
    made: list[str] = []
    digest = Tombstones._digest

    def counted(self: Tombstones, kind: str, value: str) -> str:
        made.append(value)
        return digest(self, kind, value)

    monkeypatch.setattr(Tombstones, "_digest", counted)
    return made


# --- what it costs --------------------------------------------------------------------------------


def test_what_was_recorded_after_the_erasure_costs_nothing(hashes: list[str]) -> None:
    """Otherwise each message, for ever, would cost what its sender likes."""
    facts = decode(spool_row(evaluation("private.example")).facts)
    late = msgspec.structs.replace(facts, at=NOW + 1.0, helo=LONG)
    some = Tombstones(
        SECRET,
        [
            Tombstones(SECRET, ()).of(Target(kind, value), NOW)
            for kind, value in (
                ("domain", "private.example"),
                ("address", "a@private.example"),
                ("source", "192.0.2.0/24"),
            )
        ],
    )
    hashes.clear()
    assert not some.hides_facts(late)
    assert not some.hides_sample(sample(LONG.encode()), late.at)
    assert not some.hides_document(LONG.encode(), late.at)
    assert hashes == []
    assert some.hides_facts(facts)


def test_no_name_costs_more_hashes_than_a_domain_name_has_labels(hashes: list[str]) -> None:
    """RFC 1035 2.3.4: what is longer than 253 octets was never erased."""
    some = stones("domain", "private.example")
    hashes.clear()
    assert not some.hides_name(LONG)
    assert len(hashes) <= 127
    assert max(map(len, hashes)) <= 253
    assert some.hides_name(f"{LONG}.private.example")
    facts = decode(spool_row(evaluation("legit.example")).facts)
    signatures = tuple(DkimFact("fail", f"{LONG[:-4]}.s{n}.example") for n in range(100))
    hashes.clear()
    assert not some.hides_facts(msgspec.structs.replace(facts, dkim=signatures))
    assert len(hashes) < 100 * 127 + 100


@pytest.mark.parametrize(
    "unit", [b"a.b.c.d.", b"aaaa ", b"a.b ", b"=@", b"=@a", b"a@b.c ", b"....-"]
)
def test_the_hashes_of_a_header_grow_with_its_octets(hashes: list[str], unit: bytes) -> None:
    """And so does the time: 32 KB of anything."""
    both = Tombstones(
        SECRET,
        [
            Tombstones(SECRET, ()).of(Target("domain", "private.example"), NOW),
            Tombstones(SECRET, ()).of(Target("address", "a@private.example"), NOW),
        ],
    )
    hashes.clear()
    assert not both.hides_sample(sample(unit * (32_000 // len(unit))), NOW)
    assert len(hashes) <= 32_000
    assert sum(map(len, hashes)) <= 127 * 32_000


# --- what it hides --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        b"Authentication-Results: mx.other; dkim=pass header.d=victim.example\r\n",
        b"Authentication-Results: mx.other; spf=pass smtp.mailfrom=x@mail.Victim.example\r\n",
        b"ARC-Seal: i=1; a=rsa-sha256; d=victim.example; s=s\r\n",
        b"DKIM-Signature: d='victim.example'; i=@victim.example\r\n",
        b"List-Unsubscribe: <https://victim.example/out?x=1>\r\n",
        b"Return-Path: <bounce-jane=victim.example@list.example>\r\n",
        b"X: a?victim.example!b\r\n",
        b"X: -victim.example.",
        b"victim.example",
    ],
)
def test_a_domain_in_a_stored_header_is_found_whatever_stands_before_it(headers: bytes) -> None:
    """Tags, quotes, URLs and rewritten addresses; the length of a MessagePack string is no letter
    of the first label (0x61 octets are an "a")."""
    some = stones("domain", "victim.example")
    for padding in (b"", b" " * (0x61 - len(headers))):
        assert some.hides_sample(sample(headers + padding), NOW)
    for other in (b"d=notvictim.example", b"d=victim.example.net", b"d=other.example"):
        assert not some.hides_sample(sample(other), NOW)


@pytest.mark.parametrize(
    "fields",
    [
        {"spf_record": "v=spf1 redirect=victim.example"},
        {"spf_record": "v=spf1 include:_spf.victim.example ~all"},
        {"mail_from": "jane@victim.example"},
        {"identity": "victim.example"},
        {"identity": "a" * 33 + ".victim.example"},
    ],
)
def test_a_domain_in_the_rest_of_the_sample_is_found(fields: dict[str, str]) -> None:
    """Envelope sender, SPF record, the identity of the signature."""
    assert stones("domain", "victim.example").hides_sample(sample(**fields), NOW)


@pytest.mark.parametrize(
    "text",
    [b"<Jane@victim.example>", b"smtp.mailfrom=jane@victim.example;", b"mailto:jane@victim.example",
     b"?to=jane@victim.example.", b"'jane@victim.example'"],
)  # fmt: skip
def test_an_address_is_found_in_tags_and_quotes(text: bytes) -> None:
    """They are letters of a local part, too (RFC 5322 3.2.3)."""
    some = stones("address", "jane@victim.example")
    assert some.hides_sample(sample(text), NOW)
    assert not some.hides_sample(sample(text.lower().replace(b"jane@", b"jim@")), NOW)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("192.0.2.0/30", b"<source_ip>192.0.2.2</source_ip>"),
        ("192.0.2.2/32", b"(ip4:192.0.2.2)"),
        ("2001:db8::/32", b"<source_ip>2001:db8::2</source_ip>"),
        ("2001:db8::2/128", b"ip=2001:DB8:0::2"),
    ],
)
def test_a_document_that_names_a_client_is_found(source: str, text: bytes) -> None:
    """A network as well as one address."""
    some = stones("source", source)
    assert some.hides_document(text, NOW)
    for other in (b"<source_ip>198.51.100.2</source_ip>", b"192.0.2.29", b"2001:db9::2", b"12:30"):
        assert not some.hides_document(other, NOW)


def test_a_stone_that_an_older_version_noted_counts(tmp_path: Path) -> None:
    """The file keeps its form."""
    stone = Tombstones(SECRET, ()).of(Target("domain", "victim.example"), NOW)
    tombstones.note(tmp_path / "erased.log", stone)
    [read] = tombstones.read(tmp_path / "erased.log")
    assert Tombstones(SECRET, [read]).hides_name("www.victim.example", NOW)

"""Mail as a receiving host sees it, made up from a seed: who sends it, how it is signed, how large
it is, what becomes of it.

    corpus = load_or_make(Path(".bench"), seed=1)
    corpus.batch(0, 1000), corpus.batch(1, 1000), corpus.zone

A batch is always the same messages, and no two batches share one: what a milter remembers of a
message helps it with the next batch only as far as the next message of that sender resembles it.
Proportions follow what operators of mid-sized hosts publish: most mail passes through a few large
senders, two thirds of it with two signatures; forwarding and lists break something now and then; a
tenth has no policy; spoofing is rare. Sizes are log-normal around 20 KB. Keys are RSA-2048, one for
each domain, made once and kept in a file, since that takes half a minute.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fakes.signer import PrivateKey, Signer, canonical_field, private_key

VERSION = 2
AUTHORS, PROVIDERS = 150, 8
BATCH = 100_000
"""Messages are numbered from here on in each batch."""
MEDIAN, SIGMA, SMALLEST, LARGEST = 20_000, 1.1, 1_200, 1_500_000
TEXT = (
    "the of and to in is you that it for on are with as this be at or have from one had by word but"
    " not what all were we when your can said there use an each which she do how their if will up"
    " other about out many then them these so some her would make like him into time has look two"
    " more write go see number no way could people my than first water been call who oil its now"
    " find long down day "
)
WORDS = TEXT.split()

Zone = dict[str, dict[str, Any]]


class Sample(msgspec.Struct, frozen=True):
    """One message as a milter gets it: field values with their leading space, line ends CRLF."""

    kind: str
    client: str
    helo: str
    mail_from: str
    fields: list[tuple[bytes, bytes]]
    body: bytes
    expected: str
    """The DMARC result: pass, fail or none."""


class Keys(msgspec.Struct, frozen=True):
    """The file: private keys in PEM by domain."""

    version: int
    pem: dict[str, bytes]


class Sender:
    """A domain that sends mail: its key, its own addresses, the providers it lets send."""

    def __init__(
        self, number: int, name: str, policy: str, providers: Sequence[Sender], key: PrivateKey
    ) -> None:
        self.name, self.policy, self.providers = name, policy, tuple(providers)
        self.signer = Signer(name, "s1", key=key)
        self.client = f"198.18.{number // 200}.{number % 200 + 10}"
        self.host = f"mail.{name}"


def spf_of(sender: Sender, chance: random.Random) -> str:
    """Its record: includes, own addresses, or by host name."""
    own = f"ip4:{sender.client}"
    includes = " ".join(f"include:_spf.{provider.name}" for provider in sender.providers)
    shapes = [
        f"{includes} {own} ~all",
        f"{own} {includes} -all",
        f"mx {includes} ~all",
        f"a:{sender.host} mx {includes} -all",
    ]
    return f"v=spf1 {chance.choice(shapes)}".replace("  ", " ")


def zone_of(authors: Sequence[Sender], providers: Sequence[Sender], chance: random.Random) -> Zone:
    """Everything they publish."""
    zone: Zone = {}
    for sender in (*authors, *providers):
        address, tail = sender.client, ".".join(reversed(sender.client.split(".")))
        zone[sender.name] = {
            "MX": [[10, sender.host]],
            "A": [address],
            "TXT": ["site-verification=" + "v" * 40],
        }
        zone[sender.host] = {"A": [address]}
        zone[f"{tail}.in-addr.arpa"] = {"PTR": [sender.host]}
        zone |= sender.signer.records()
        if sender.policy != "no spf":
            zone[sender.name]["TXT"].append(spf_of(sender, chance))
        if sender.policy not in ("", "no spf"):
            record = f"v=DMARC1; p={sender.policy}; rua=mailto:dmarc@{sender.name}; adkim=r; aspf=r"
            zone[f"_dmarc.{sender.name}"] = {"TXT": [record]}
    for provider in providers:
        blocks = [f"_netblocks{n}.{provider.name}" for n in (1, 2)]
        zone[f"_spf.{provider.name}"] = {
            "TXT": [f"v=spf1 include:{blocks[0]} include:{blocks[1]} ~all"]
        }
        zone[blocks[0]] = {
            "TXT": ["v=spf1 " + " ".join(f"ip4:203.0.113.{n}/32" for n in range(1, 12)) + " ~all"]
        }
        zone[blocks[1]] = {"TXT": [f"v=spf1 ip4:192.0.2.0/28 ip4:{provider.client} ~all"]}
    return zone


class Corpus:
    """The senders of a seed, what they publish, and their messages."""

    def __init__(self, seed: int, key_of: Callable[[str], PrivateKey]) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        policies = (
            ["reject"] * 35 + ["quarantine"] * 20 + ["none"] * 30 + [""] * 12 + ["no spf"] * 3
        )

        def sender(number: int, name: str, policy: str, providers: Sequence[Sender] = ()) -> Sender:
            return Sender(number, name, policy, providers, key_of(name))

        self.providers = [
            sender(1000 + n, f"provider{n}.example", "reject") for n in range(PROVIDERS)
        ]
        self.authors = [
            sender(
                n,
                f"author{n}.example",
                policies[n * 37 % 100],
                self.chance.sample(self.providers, self.chance.choice([1, 1, 2, 2, 3])),
            )
            for n in range(AUTHORS)
        ]
        self.popularity = [1 / (rank + 1) for rank in range(AUTHORS)]
        self.blocks = [self._block() for _ in range(64)]
        self.zone = zone_of(self.authors, self.providers, self.chance)

    def batch(self, number: int, count: int) -> list[Sample]:
        """The first messages of this batch; always the same ones, keys apart."""
        self.chance = random.Random(f"{self.seed} {number}")
        kinds = self.chance.choices(list(KINDS), list(KINDS.values()), k=count)
        return [self.sample(kind, number * BATCH + each) for each, kind in enumerate(kinds)]

    def sample(self, kind: str, number: int) -> Sample:
        """One message of this kind. Its number makes it different from all others."""
        raw, sender, mail_from, expected = getattr(self, kind)(number)
        return Sample(kind, sender.client, sender.host, mail_from, *split(raw), expected)

    def author(self, accept: Callable[[Sender], bool] = lambda _: True) -> Sender:
        """One of the authors, by popularity."""
        while True:
            author = self.chance.choices(self.authors, self.popularity)[0]
            if accept(author):
                return author

    def message(self, author: Sender, number: int) -> bytes:
        """An unsigned message of some size."""
        size = min(LARGEST, max(SMALLEST, self.chance.lognormvariate(math.log(MEDIAN), SIGMA)))
        body = bytearray()
        while len(body) < size:
            body += self.chance.choice(self.blocks)
        subject = " ".join(self.chance.sample(WORDS, 7))
        head = [
            (
                f"Received: from {author.host} ({author.host} [{author.client}])\r\n\tby"
                f" relay.{author.name} with ESMTPS id 4X{number:08X}"
            ),
            f"Received: by app.{author.name} with HTTP; Tue, 7 Jul 2026 10:11:12 +0000",
            f"From: Sender {number % 50} <news{number % 50}@{author.name}>",
            f"To: Recipient <user{number % 900}@receiver.example>",
            f"Subject: {subject}",
            "Date: Tue, 7 Jul 2026 10:11:12 +0000",
            f"Message-ID: <{number}.{self.chance.getrandbits(64):x}@{author.name}>",
            f"Reply-To: answers@{author.name}",
            "MIME-Version: 1.0",
            f'Content-Type: multipart/alternative;\r\n\tboundary="b{number}"',
            f"List-Unsubscribe: <https://{author.name}/u/{number}>,\r\n\t<mailto:u@{author.name}>",
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
            "Precedence: bulk",
            *(f"X-Header-{n}: " + " ".join(self.chance.sample(WORDS, 9)) for n in range(9)),
        ]
        return (
            "\r\n".join(head).encode()
            + b"\r\n\r\n"
            + bytes(body[: int(size)].rstrip(b"\r\n"))
            + b"\r\n"
        )

    def _block(self) -> bytes:
        lines = []
        for _ in range(self.chance.randrange(8, 60)):
            if self.chance.random() < 0.5:
                lines.append(" ".join(self.chance.choices(WORDS, k=13)))
            else:
                lines.append(
                    "".join(
                        self.chance.choices(
                            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=76
                        )
                    )
                )
        return "\r\n".join(lines).encode() + b"\r\n"

    # What happens to messages; each gives (message, client's sender or address, MAIL FROM, DMARC
    # result).

    def direct(self, number: int) -> tuple[bytes, Sender, str, str]:
        """From the author's own host, with its signature."""
        author = self.author()
        raw = author.signer.sign(self.message(author, number))
        return raw, author, f"bounce@{author.name}", passes(author)

    def provided(self, number: int) -> tuple[bytes, Sender, str, str]:
        """By a mass mailer: two signatures, bounces to the mailer."""
        author = self.author()
        provider = self.chance.choice(author.providers)
        raw = provider.signer.sign(author.signer.sign(self.message(author, number)))
        return raw, provider, f"b+{number}@{provider.name}", passes(author)

    def unsigned(self, number: int) -> tuple[bytes, Sender, str, str]:
        """SPF alone."""
        author = self.author(lambda sender: sender.policy != "no spf")
        return self.message(author, number), author, f"bounce@{author.name}", passes(author)

    def forwarded(self, number: int) -> tuple[bytes, Sender, str, str]:
        """As it was, from elsewhere; sealed by who forwarded it (RFC 8617) one time in three."""
        author, forwarder = self.author(), self.chance.choice(self.providers)
        raw = author.signer.sign(self.message(author, number))
        return self.sealed(raw, forwarder), forwarder, f"bounce@{author.name}", passes(author)

    def listed(self, number: int) -> tuple[bytes, Sender, str, str]:
        """Through a list that adds a footer, and signs."""
        author, keeper = (
            self.author(lambda sender: sender.policy in ("none", "quarantine")),
            self.chance.choice(self.providers),
        )
        raw = author.signer.sign(self.message(author, number)) + b"_____\r\nThe list\r\n"
        raw = keeper.signer.sign(raw)
        return self.sealed(raw, keeper), keeper, f"list-bounces@{keeper.name}", "fail"

    def spoofed(self, number: int) -> tuple[bytes, Sender, str, str]:
        """By somebody else."""
        author = self.author(lambda sender: sender.policy in ("reject", "quarantine"))
        liar = self.author(lambda sender: sender not in author.providers and sender is not author)
        return self.message(author, number), liar, f"bounce@{author.name}", "fail"

    def junk(self, number: int) -> tuple[bytes, Sender, str, str]:
        """From a name that does not exist."""
        name = f"x{self.chance.getrandbits(40):x}.junk.example"
        raw = self.message(self.authors[0], number).replace(
            self.authors[0].name.encode(), name.encode()
        )
        return raw, self.author(), f"a@{name}", "none"

    def sealed(self, raw: bytes, sealer: Sender) -> bytes:
        """With one ARC set of this sealer, one time in three."""
        if self.chance.random() > 0.33:
            return raw
        results = (
            b"ARC-Authentication-Results",
            f" i=1; {sealer.name}; dkim=pass; spf=pass; dmarc=pass".encode(),
        )
        signature = sealer.signer.field(
            raw, name=b"ARC-Message-Signature", tags={"v": None, "i": "1"}
        )
        stated = {
            "i": "1",
            "a": "rsa-sha256",
            "t": "1700000000",
            "cv": "none",
            "d": sealer.name,
            "s": "s1",
            "b": "",
        }
        covered = canonical_field(results, "relaxed") + canonical_field(signature, "relaxed")
        seal = sealer.signer.complete(b"ARC-Seal", stated, covered, "relaxed")
        return (
            b"".join(name + b":" + value + b"\r\n" for name, value in (seal, signature, results))
            + raw
        )


KINDS = {
    "provided": 35,
    "direct": 34,
    "unsigned": 6,
    "forwarded": 7,
    "listed": 6,
    "spoofed": 5,
    "junk": 7,
}


def passes(author: Sender) -> str:
    """The result when something aligned passes."""
    return "none" if author.policy in ("", "no spf") else "pass"


def split(raw: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Fields as an MTA hands them on (folded with LF alone, as Postfix does), and the body."""
    head, _, body = raw.partition(b"\r\n\r\n")
    fields = []
    for line in head.replace(b"\r\n\t", b"\n\t").replace(b"\r\n ", b"\n ").split(b"\r\n"):
        name, _, value = line.partition(b":")
        fields.append((name, value))
    return fields, body


def load_or_make(folder: Path, *, seed: int = 1) -> Corpus:
    """With the keys of the file if it is there, else with new ones, which are written to it."""
    path = folder / f"keys-{seed}.msgpack"
    stored: dict[str, bytes] = {}
    if path.exists():
        keys = msgspec.msgpack.decode(path.read_bytes(), type=Keys)
        stored = keys.pem if keys.version == VERSION else {}
    made: dict[str, bytes] = {}

    def key_of(name: str) -> PrivateKey:
        if name in stored:
            # They are ours: to check each costs 70 ms.
            key = load_pem_private_key(stored[name], None, unsafe_skip_rsa_key_validation=True)
            assert isinstance(key, RSAPrivateKey)
            return key
        new = private_key(name)
        made[name] = new.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return new

    corpus = Corpus(seed, key_of)
    if made:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.msgpack.encode(Keys(VERSION, stored | made)))
    return corpus


def main() -> None:
    """Make it and say what is in it."""
    parser = argparse.ArgumentParser(prog="python -m bench.corpus", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    corpus = load_or_make(arguments.folder, seed=arguments.seed)
    samples = corpus.batch(0, arguments.messages)
    sizes = sorted(len(sample.body) for sample in samples)
    print(
        f"{len(sizes)} messages, {sum(sizes) / 1e6:.1f} MB, median {sizes[len(sizes) // 2]},"
        f" largest {sizes[-1]}; {len(corpus.zone)} names"
    )
    for kind in KINDS:
        print(f"{kind:<12}{sum(sample.kind == kind for sample in samples):>6}")


if __name__ == "__main__":
    main()

"""How many messages of a batch must ask the DNS, whatever a milter remembers of those before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from bench.corpus import Sample

SIGNED_BY = re.compile(rb"\bd=([^;\s]+)")
AUTHOR = re.compile(rb"@([^>]+)>")


def share_of_new(passes: Iterable[Sequence[Sample]], memories: int) -> Iterator[float]:
    """For each pass the share of messages that name a domain of whom its memory has heard nothing.
    Messages go to the memories in turn."""
    known: list[set[tuple[str, bytes]]] = [set() for _ in range(memories)]
    for samples in passes:
        new = 0
        for number, sample in enumerate(samples):
            names, memory = set(_names(sample)), known[number % memories]
            new += not names <= memory
            memory |= names
        yield new / len(samples)


def _names(sample: Sample) -> Iterator[tuple[str, bytes]]:
    """What each message is looked up by: SPF's domain, the author's, those of its signatures."""
    yield "SPF", sample.mail_from.rpartition("@")[2].encode()
    for name, value in sample.fields:
        if name == b"From":
            yield from (("DMARC", domain) for domain in AUTHOR.findall(value))
        elif name in (b"DKIM-Signature", b"ARC-Message-Signature", b"ARC-Seal"):
            yield from (("key", domain) for domain in SIGNED_BY.findall(value))

"""Why the DNS did not answer, in words that say whose fault it is."""

from __future__ import annotations

from dmarc_milter.core.resolver import LookupFailed, NoAnswer, Resolver

WORDS = (
    ("response code 2", "SERVFAIL: its name servers fail, or its DNSSEC signatures are wrong"),
    ("response code 5", "REFUSED: the name server that was asked does not serve this name"),
    ("response code", "the name server answers with an error"),
    ("too many aliases", "its aliases lead in a circle, or too far"),
    ("time", "no answer in time"),
)
"""What a resolver's own words hold, the first that fits."""


def because(name: str, resolver: Resolver) -> str:
    """Behind a sentence about a TXT look-up that failed: " (REASON)", or "" where it is not
    known. The question was asked before, so it costs no more."""
    try:
        resolver.txt(name)
    except LookupFailed as failure:
        found = next((said for words, said in WORDS if words in str(failure)), "")
        return f" ({found})" if found else ""
    except NoAnswer:
        pass
    return ""

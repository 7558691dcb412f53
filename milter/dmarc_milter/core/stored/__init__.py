"""What is stored of a message: reports, `why`, `impact` and the totals are made from it."""

from dmarc_milter.core.stored.encoding import UnreadableFacts, decode, encode
from dmarc_milter.core.stored.facts import (
    ArcFact,
    DkimFact,
    Facts,
    SpfFact,
    StaleFact,
    StoredOutcome,
    StoredPolicy,
    StoredReason,
    StoredUri,
    is_pass,
)

__all__ = [
    "ArcFact",
    "DkimFact",
    "Facts",
    "SpfFact",
    "StaleFact",
    "StoredOutcome",
    "StoredPolicy",
    "StoredReason",
    "StoredUri",
    "UnreadableFacts",
    "decode",
    "encode",
    "is_pass",
]

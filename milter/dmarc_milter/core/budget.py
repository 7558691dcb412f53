"""What one message may take of time, DNS queries and data: every limit of an evaluation with its
default.

The defaults of [dns] and [limits] and those of the core's options are these.
"""

from __future__ import annotations

from typing import Final

MESSAGE_SECONDS: Final = 25.0
"""Of waiting for the DNS, for one message."""
MESSAGE_QUERIES: Final = 160
"""Different DNS questions of one message. RFC 7208 4.6.4 lets SPF alone ask 111."""

LOOK_UP_SECONDS: Final = 5.0
LOOK_UP_SHARE: Final = 0.8
"""One look-up gets at most this part of the message's seconds. Something is left for what depends
on its failure, and nothing that has failed already still waits when the next message comes."""

SPF_SECONDS: Final = 20.0
"""RFC 7208 4.6.4: at least 20 seconds."""
SPF_SHARE: Final = 0.8
"""SPF gets at most this part of the message's seconds: the rest is for the policy and the keys."""
SPF_ADDRESSES: Final = 100
"""Different A or AAAA questions for the names of mx and ptr (RFC 7208 4.6.4: ten mx of ten
exchanges)."""
SPF_QUERIES_SHARE: Final = 0.7
"""SPF's addresses and its other questions are at most this part of the message's queries."""
SPF_EARLY_SHARE: Final = 0.1
"""What SPF asks before the header has come is at most this part of the message's queries: the
policy and the keys are asked for after it."""
SPF_TERMS: Final = 10
"""Terms that look something up (RFC 7208 4.6.4)."""
SPF_VOID_LOOKUPS: Final = 2
"""RFC 7208 4.6.4."""
SPF_RECORD: Final = 4096
"""Bytes of a record."""

DKIM_SIGNATURES: Final = 10
DKIM_KEYS_SHARE: Final = 0.6
"""The keys of DKIM get at most this part of the message's seconds: SPF may come after them, and
senders make keys of their own as slow as they like."""
DKIM_ALIASES: Final = 16
"""For the CNAMEs before keys, which count where the resolver asked does not follow them itself."""
DKIM_NAMES: Final = 256
"""Names in h=."""
DKIM_FIELD: Final = 16 * 1024
"""Bytes of a DKIM or ARC field's value."""
DKIM_KEY_RECORD: Final = 4096
"""Bytes of a key record."""
RSA_MIN_BITS: Final = 1024
"""RFC 8301 3.2."""
RSA_MAX_BITS: Final = 8192
CLOCK_SKEW: Final = 300
"""Seconds allowed for t= in the future and x= in the past."""

ARC_INSTANCES: Final = 50
"""RFC 8617 4.2.1."""
ARC_LOOKUPS: Final = 20
"""Different keys of one chain."""

IPREV_NAMES: Final = 10
"""Names looked at, as for SPF's ptr (RFC 7208 4.6.4). A client owns its reverse zone and may put
thousands there."""
IPREV_QUERIES: Final = 1 + IPREV_NAMES
IPREV_SECONDS: Final = 10.0

WRITTEN_QUERIES: Final = 60
"""For what the MTA may write into From: three for each name and for each of the search list's."""

HEADER_BYTES: Final = 256 * 1024
HEADER_FIELDS: Final = 1000
"""Fields that are judged."""
REMOVABLE_FIELDS: Final = 200
"""Fields that are taken out of one message. Postfix's time for that grows with their square."""


def look_up_seconds(timeout: float, message_seconds: float) -> float:
    """The time-out of one look-up, in seconds."""
    return min(timeout, LOOK_UP_SHARE * message_seconds)


def spf_seconds(message_seconds: float) -> float:
    """Seconds for SPF, of a message that has so many."""
    return min(SPF_SECONDS, SPF_SHARE * message_seconds)


def spf_addresses(message_queries: int) -> int:
    """Address questions for SPF, of a message that has so many queries."""
    return min(SPF_ADDRESSES, int(SPF_QUERIES_SHARE * message_queries) - spf_queries(0))


def spf_queries(addresses: int) -> int:
    """The most questions of one SPF check: the record, its terms, the client's PTR, addresses."""
    return 1 + SPF_TERMS + 1 + addresses


def spf_early_queries(message_queries: int) -> int:
    """Questions for SPF before the header has come, of a message that has so many: one at least."""
    return max(1, int(SPF_EARLY_SHARE * message_queries))


def dkim_queries(signatures: int) -> int:
    """Questions for the keys of so many signatures, which may be aliases."""
    return 2 * signatures + DKIM_ALIASES

"""What the configuration says about SPF."""

from __future__ import annotations

from dataclasses import dataclass

from dmarc_milter.core import budget


@dataclass(frozen=True, slots=True)
class SpfOptions:
    """Limits of RFC 7208 4.6.4, and what local policy makes of a permissive record."""

    seconds: float = budget.SPF_SECONDS
    """For the whole check; then temperror (RFC 7208 4.6.4)."""
    max_record: int = budget.SPF_RECORD
    """Bytes of a record; beyond: permerror."""
    max_term: int = 512
    """Bytes of a term; beyond: permerror."""
    max_address_lookups: int = budget.SPF_ADDRESSES
    """Different A or AAAA look-ups for the names of mx and ptr; beyond: permerror."""
    void_lookups: int = budget.SPF_VOID_LOOKUPS
    """Terms that find nothing; beyond: permerror."""
    permissive_prefix4: int = 8
    """A pass by an IPv4 range with a shorter prefix, or by all, is permissive."""
    permissive_prefix6: int = 16
    permissive_counts: bool = True
    """False: a permissive pass becomes SpfStatus.POLICY and does not count for DMARC."""
    upgrade_counts: bool = True
    """False: so does a pass that an earlier hop had seen as something else (SpfResult.upgrade)."""

    @property
    def queries(self) -> int:
        """The most questions one check can ask: the record, ten terms, the client's PTR, and the
        addresses of mx and ptr."""
        return budget.spf_queries(self.max_address_lookups)

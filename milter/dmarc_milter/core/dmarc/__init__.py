"""DMARC (RFC 9989, and RFC 7489's discovery where configured)."""

from dmarc_milter.core.dmarc.record import Policy, Record
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus, DomainOutcome

__all__ = ["DmarcResult", "DmarcStatus", "DomainOutcome", "Policy", "Record"]

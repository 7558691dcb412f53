"""DKIM (RFC 6376, 8301, 8463, 8616) by dkimpy, fed with a streamed body and fenced against its
defects."""

from dmarc_milter.core.dkim.body import BodyHasher
from dmarc_milter.core.dkim.options import DkimOptions
from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dkim.verify import DkimPlan, prepare, verify

__all__ = ["BodyHasher", "DkimOptions", "DkimPlan", "DkimResult", "DkimStatus", "prepare", "verify"]

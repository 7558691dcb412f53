"""DKIM (RFC 6376, 8301, 8463, 8616) by dkimpy, fed with a streamed body and fenced against its defects."""

from dmarc_milter.dkim.result import DkimResult, DkimStatus

__all__ = ["DkimResult", "DkimStatus"]

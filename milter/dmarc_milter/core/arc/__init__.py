"""ARC (RFC 8617)."""

from dmarc_milter.core.arc.override import trusted_override
from dmarc_milter.core.arc.result import ArcHop, ArcResult, ArcStatus
from dmarc_milter.core.arc.structure import ArcOptions, ArcPlan, prepare
from dmarc_milter.core.arc.verify import validate

__all__ = [
    "ArcHop",
    "ArcOptions",
    "ArcPlan",
    "ArcResult",
    "ArcStatus",
    "prepare",
    "trusted_override",
    "validate",
]

"""When a chain overrules the author's policy (RFC 8617 7.2.2)."""

from __future__ import annotations

from collections.abc import Sequence

from dmarc_milter.core.arc.result import ArcResult, ArcStatus
from dmarc_milter.core.mail.domain import Domain

MAX_COMMENT = 1000
"""Characters of an override's comment."""


def trusted_override(
    arc: ArcResult, author_domain: Domain, trusted_sealers: Sequence[Domain]
) -> str | None:
    """The comment of an override (RFC 8617 7.2.2), or None when the chain gives no reason for one.

    The word of the oldest sealer counts from which on every sealer is trusted: it must have seen
    dmarc=pass for the same author domain. A chain that anyone may have made proves nothing by
    itself.
    """
    if arc.status is not ArcStatus.PASS:
        return None
    oldest = None
    for hop in reversed(arc.hops):
        if hop.sealer not in trusted_sealers:
            break
        oldest = hop
    if oldest is None or oldest.aar_dmarc != "pass" or oldest.aar_header_from != author_domain:
        return None
    return _comment(arc)


def _comment(arc: ArcResult) -> str:
    """`arc=pass as[2].d=... as[2].s=... as[1].d=... remote-ip[1]=...` (RFC 8617 7.2.2), newest
    first; long chains are cut."""
    address = arc.hops[0].aar_remote_ip
    origin = f" remote-ip[1]={address}" if address else ""
    comment = "arc=pass"
    for hop in reversed(arc.hops):
        part = f" as[{hop.instance}].d={hop.sealer} as[{hop.instance}].s={hop.selector}"
        if len(comment) + len(part) + len(origin) > MAX_COMMENT:
            break
        comment += part
    return comment + origin

"""What ends a sender's waiting: a rule of the administrator's, for as long as the sender's DNS is
broken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dmarc_milter.core.deferrals import DEFERRALS
from dmarc_milter.core.toml import quoted

FOR = timedelta(days=7)
"""For how long a suggested rule holds: longer than a queue keeps mail, shorter than it is
forgotten."""
MAX_COMMENT = 200
CAUTION = (
    "Until it expires such a rule lets everything by that claims to be from the domain, forgeries"
    " too."
)


def rule(author_domain: str, reason: str, failing_name: str, now: float) -> str:
    """A [[policy.rules]] entry, TOML, that delivers this author domain's mail; "" where a rule is
    not what would help.

    `now` in seconds since 1970. What is quoted is printable ASCII.
    """
    if reason != "dns" or not author_domain:
        return ""
    last = (datetime.fromtimestamp(now, UTC) + FOR).date().isoformat()
    comment = DEFERRALS[reason].says(failing_name or author_domain)[:MAX_COMMENT]
    return "\n".join(
        (
            "[[policy.rules]]",
            'action = "accept"',
            f"author_domains = [{quoted(author_domain)}]",
            "include_subdomains = false",
            f"expires = {quoted(last)}",
            f"comment = {quoted(comment)}",
        )
    )

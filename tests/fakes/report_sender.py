"""A domain that sends reports, and that others would believe."""

from __future__ import annotations

from typing import Any

from fakes.signer import Signer

SENDER = Signer("reports.example")
ZONE: dict[str, Any] = {
    "reports.example": {
        "TXT": ["v=spf1 ip4:198.51.100.1 -all"],
        "MX": [[10, "mx.reports.example"]],
    },
    "_dmarc.reports.example": {"TXT": ["v=DMARC1; p=reject; rua=mailto:agg@reports.example"]},
    SENDER.key_name: {"TXT": [SENDER.record()]},
}

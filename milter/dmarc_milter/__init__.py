"""dmarc-milter: verifies inbound mail with SPF, DKIM, ARC and DMARC, enforces and reports."""

__version__ = "0.1.0"

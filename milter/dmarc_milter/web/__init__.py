"""The read-only dashboard: server-rendered pages over the store, on the loopback unless a token
protects them."""

from dmarc_milter.web.app import WebOptions, create_app

__all__ = ["WebOptions", "create_app"]

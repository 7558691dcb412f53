"""Fixtures that several modules share: imported into each they would be made anew for each."""

from fakes.stores import postgres_server, store_url

__all__ = ["postgres_server", "store_url"]

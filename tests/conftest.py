"""For every test: how long an example takes is no matter here, since the machine may be busy;
tests/bench measures speed.

The fixtures are here because several modules share them: imported into each they would be made anew
for each.
"""

from hypothesis import settings

from fakes.stores import postgres_server, store_url

__all__ = ["postgres_server", "store_url"]

settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")

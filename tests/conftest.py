"""For every test: how long an example takes is no matter here, since the machine may be busy; tests/bench measures speed."""

from hypothesis import settings

settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")

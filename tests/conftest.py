"""Settings of all tests."""

from hypothesis import settings

# An example's time says nothing on a machine that does other things too; pytest's own timeout ends what hangs.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

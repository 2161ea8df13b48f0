"""Settings of all tests."""

import signal

from hypothesis import settings

# What a script starts in the background does not hear Ctrl-C, and nor would what the tests start to send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example's time says nothing on a machine that does other things too; pytest's own timeout ends what hangs.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

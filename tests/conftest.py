"""For all tests: an example that takes long on a busy machine is no failure, and Ctrl-C works for what they start."""

import signal

from hypothesis import settings

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# A shell's background job begins with SIGINT ignored and hands that on; tests interrupt what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

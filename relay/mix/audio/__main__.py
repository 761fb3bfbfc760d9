"""`python -m relay.mix.audio`: started by the relay only (`relay.mix.audio.pool`)."""

import os
import sys

from relay.mix.audio.process import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # a mixer that hangs must not keep the process

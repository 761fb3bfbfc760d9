"""`python -m relay.mix.audio`: started by the relay only (`relay.mix.audio.pool`)."""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start a thread per core, and never use it

from relay.mix.audio.process import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # a mixer that hangs must not keep the process

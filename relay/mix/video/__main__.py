"""`python -m relay.mix.video`, started by `relay.mix.video.pool`."""

import sys

from relay.mix.video.process import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""`python -m relay.links`: started by the relay only (`relay.links.process`)."""

import sys

from relay.links.body import main

if __name__ == "__main__":
    main(sys.argv[1:])

"""`python -m relay.node.link_process`: started by the relay only (`relay.node.link_process.process`)."""

import sys

from relay.node.link_process.body import main

if __name__ == "__main__":
    main(sys.argv[1:])

"""`python -m relay.egress`: see `relay.egress.process`."""

from relay.egress.process import main

main()

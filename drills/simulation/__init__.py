"""A cluster in one process and in virtual time: the machines of `relay` with faults from seeded dice.

Real are the machines: `LeaseKeeper`, `NodeTable`, `HostedRoom` with the document it follows and what it takes from
other nodes; and, in a simulation of its own, `Breaker`, `LinkSender` and `LinkReceiver` of one link. Models are the
store (held to the scripts by a test), the network, the people, and the few lines of a node that join the machines
(`relay.node.links`). docs/load.md has the table.
"""

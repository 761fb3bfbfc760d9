"""The ends of a node's links, in the relay's process (`ends`) or in one of their own (`process`, `body`)."""

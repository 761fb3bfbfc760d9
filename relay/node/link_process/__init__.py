"""The ends of a node's links in a process of their own: what the two say, the process's body, the relay's side."""

"""Load on a cluster that runs: rooms with hosts and viewers who come, look, switch layers, leave and return."""

"""One drill from beginning to end: start, load, steady state, faults, rollback, measurement."""

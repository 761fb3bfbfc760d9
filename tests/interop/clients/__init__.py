"""The real clients with which the interop tests, the drills and the benches talk to a relay."""

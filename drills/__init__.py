"""Drills: faults put into a test cluster with live media, and proof of what its viewers saw of them."""

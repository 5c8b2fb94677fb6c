"""Measures actshift against the floor and against every peer: `python -m benchmarks`."""

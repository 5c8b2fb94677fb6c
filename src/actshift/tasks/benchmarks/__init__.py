"""Benchmarks, one file each. Every module-level `Task` in a file of this package is registered by its name."""

"""Measurements: programs to be run by hand, never tests. Results go to `docs/reference/benchmarks.md`."""

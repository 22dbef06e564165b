"""Measurements that take minutes and leave tables in `results`; each runs as `python -m benchmarks.NAME`."""

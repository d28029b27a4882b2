"""Benchmarks of the real gateway over loopback: `make bench`, or `python -m bench --help`."""

"""Benchmarks: what they measure and how to run them stands in docs/benchmarks.md."""

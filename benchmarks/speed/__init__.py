"""How fast a step is, against its own plain form and against others: `python -m benchmarks.speed`."""

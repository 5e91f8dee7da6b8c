"""The quality benchmark: methods against ground truth, against each other, and against their own ablations.

Usage: python -m benchmarks.quality main|development|hindsight|ablations [--quick] [--workers N] [--minutes M]
"""

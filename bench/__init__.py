"""Benches: `python -m bench.run` calls the functions the node itself calls and prints figures, targets and ratios.

Not part of the product; figures in docs/benchmarks.md come from here.
"""

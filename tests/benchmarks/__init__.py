"""Benchmarks: `make bench`. Figures are medians of repeats; ratios are taken within one run."""

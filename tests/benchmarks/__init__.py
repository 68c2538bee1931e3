"""Benchmarks: `make bench`. Figures are medians of repeats; ratios are taken within one run.

`goals` names every figure, with its unit and its goal; the README beside this file says how each
is taken.
"""

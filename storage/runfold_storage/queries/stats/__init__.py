"""Statistics: counts, durations, usage, percentiles and failures over spans of time.

Figures are added up from the daily and hourly rollups and from deltas that are not merged yet; only
minutes and error types come from the runs themselves. Histograms add up, so percentiles of any span
are within 1% of the true value. Sums of whole days are cached by the version of their rows
(`day_cache`), so a cached answer equals a fresh one.
"""

"""The rows that a batch writes, rollup values, and their binary encoding.

Pure values: nothing here reads or writes the database. Times are in microseconds, durations in
microseconds, money in nano-dollars, so that sums are exact.
"""

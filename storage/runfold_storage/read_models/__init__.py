"""The parts of answers that several reads share: summaries, cursors, watermarks.

All are values without state. A watermark says how far the fold had come when its answer was read.
"""

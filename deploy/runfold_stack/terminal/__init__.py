"""Output on the terminal: results, tables, progress bars, log lines.

Results go to stdout, everything else to stderr. Recorded names and texts never reach a terminal
with control characters.
"""

"""`make demo`: record a real workflow on a stack of its own, and show the history.

The stack lives in a temporary folder, which is removed at the end, also after Ctrl-C or SIGTERM.
"""

"""Traces of other tools as runs."""

"""Reads of one run."""

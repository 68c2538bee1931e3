"""Frames that wait on disk while Redis takes none."""

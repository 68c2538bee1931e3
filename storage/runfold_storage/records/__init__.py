"""Rows as the fold makes them, and their binary encoding."""

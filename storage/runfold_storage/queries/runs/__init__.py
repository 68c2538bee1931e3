"""Lists of runs and their export."""

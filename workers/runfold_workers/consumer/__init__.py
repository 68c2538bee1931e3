"""From frames to commits: read, fold, write, publish."""

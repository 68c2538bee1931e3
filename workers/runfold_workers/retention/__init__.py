"""The daily job of retention, and the way back from the archive."""

"""Live streams: one reader of changes, many subscribers."""

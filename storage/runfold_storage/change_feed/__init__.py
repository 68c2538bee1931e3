"""Which runs changed, in the order of commits, as watchers read it."""

"""`watch`: runs as they change, in a terminal, as lines or as JSON."""

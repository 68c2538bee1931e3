"""`make demo`: record a real workflow and show what can be read."""

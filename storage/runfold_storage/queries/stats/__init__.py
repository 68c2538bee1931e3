"""Statistics, workflows and failures."""

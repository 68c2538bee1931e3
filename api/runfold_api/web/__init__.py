"""HTTP helpers: problems, query parameters, paths."""

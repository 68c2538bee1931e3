"""The reads behind `History`."""

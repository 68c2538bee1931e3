"""Deletion by request and expiry by age."""

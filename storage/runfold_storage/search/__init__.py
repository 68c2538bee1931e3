"""The search index, its upkeep and its lookups."""

"""Statistics as differences, and how they are added, recomputed and checked."""

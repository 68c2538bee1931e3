"""Access to PostgreSQL: connections, and bulk writes in binary format.

No connection lives at module level. Driver errors are translated in `connections.explain`, where a
caller can act on them; all others pass through.
"""

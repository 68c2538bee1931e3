"""How this package talks to PostgreSQL: connections, statements, bulk writes."""

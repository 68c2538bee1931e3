"""How far each shard has come, which worker leads it, and what went wrong."""

"""Writing a batch: ledger, rows, statistics and positions in one transaction."""

"""Reading the ledger, and its partitions."""

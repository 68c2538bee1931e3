"""Verify, rebuild and repair: the tables compared with the ledger."""

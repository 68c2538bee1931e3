"""The filters of runs, in SQL and in memory."""

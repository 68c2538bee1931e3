"""Reads of one run: details, payloads, events, and its live state.

Rows of `runs` and `nodes` have status, times and counts; payloads come from the ledger (`events`).
Retention deletes a run's events first, and its rows later. What the database lacks is read from the
archive, if there is one, after the connection has been returned. An unreadable archive costs a run
in the database only its payloads; a run that only the archive has raises `ArchiveUnusable`.
"""

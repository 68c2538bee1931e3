"""The fold's progress: positions, leases, the change log, stream recovery, liveness, incidents.

A shard's checkpoint (`positions`) names the last stream entry whose effects are committed. A batch
moves it by compare-and-set in the transaction that writes these effects, so effects are applied
once, however many workers try. Leases only avoid duplicate work.

If a stream itself is lost (flushed, restored, trimmed by hand), `streams` detects it, and
`recovery` corrects the position and counts an incident in the same transaction.
"""

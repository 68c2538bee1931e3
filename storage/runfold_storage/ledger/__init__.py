"""The ledger: reading its events, its weekly partitions, and the keys of its runs.

The ledger is the source of truth: every projection can be folded again from it. Events are appended
by the fold and deleted only by deletion and retention. A partition must exist before the first
event of its week is written; creating it twice, or dying halfway, changes nothing.
"""

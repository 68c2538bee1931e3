"""The search index of runs' texts: written behind the fold, looked up by lists.

`search_runs` has the text of every run (workflow, id, tags, error), `search_payloads` that of the
inputs and outputs of finished runs, for projects that enable it (`search_projects`). Both have
trigram indexes.

Invariant: runs whose last change is numbered up to the shard's `change_seq` in `search_progress`
are indexed as they are; a lookup adds the runs that have changed since. So a search never misses a
run, however far the index is behind; it may only fall back to a bounded scan.

Each step writes texts and moves `search_progress` in one transaction. A process that dies halfway
leaves the step to the next follower, which repeats it.
"""

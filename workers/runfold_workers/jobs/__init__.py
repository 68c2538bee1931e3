"""Background work: rebuild, delete many runs, retention, and the search index.

The table `jobs` is the truth: what to do, how far it is, how it ended. RQ carries only ids.

- One process is the leader (`queue`); it holds a session-level advisory lock. Once a second it
  puts unfinished jobs that no worker has into the queue: new ones, those of a dead worker, those
  that a lost Redis forgot. Once a day it adds the retention job, named for its day.
- A worker holds the job's advisory lock on the connection that does the work (`registry`). A job
  that is queued twice is harmless: the second worker finds it locked or done.
- Each kind works in short steps and saves its progress; after SIGTERM or a crash the next worker
  resumes there. A failed job stores its reason. When a server is away, the worker waits.
- RQ's workers import and call whatever an entry names; ours take its id and nothing else
  (`queue`). Jobs run in the worker's own process, because a forked child would outlive it.
"""

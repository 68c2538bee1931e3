"""The HTTP service: REST, live streams and the web page over the history of runs.

The service has no state of its own. Reads go to PostgreSQL through `runfold_storage.History`;
posted events and executions go to Redis Streams, and a worker folds them. Any number of processes
can run at once, and they start in any order with PostgreSQL and Redis: `/readyz` reports what is
missing, and a request that needs it gets a 503.

Invariants: a write is answered with 202 only when all its events are in their streams, and
sending it again is safe, because each event has an id. Every error is a problem (RFC 9457) that
names the culprit. When a process dies, clients repeat their requests at another one: a write
without an answer is sent again, and a stream continues at its last event id (`live`).
"""

from .app import create_app
from .server import serve
from .settings import Settings

__all__ = ["Settings", "create_app", "serve"]

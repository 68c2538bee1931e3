"""Histories for tests of reads: events told in a few words, folded as a worker folds them."""

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from runfold.protocol.codec import decode_event
from runfold.protocol.frames import encode_json_frame
from runfold.protocol.streams import shard_of
from runfold_storage.checkpoints.positions import ensure_shards
from runfold_storage.postgres.connections import connect
from runfold_storage.projections.batch_encoding import DEFAULT_LIMITS, SingleStatementLimits
from runfold_storage.queries.run.events import EventPage
from runfold_workers.consumer.committer import Committer
from runfold_workers.fold.frame_decoder import StreamEntry
from runfold_workers.jobs.worker import SearchIndexing
from table_reader import merge_all_deltas

SHARDS = 4
START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)

_frames = itertools.count(1)


def make_event(kind: str, run: str, second: float, **fields: Any) -> dict[str, Any]:
    """An event so many seconds after `START`."""
    at = (START + timedelta(seconds=second)).isoformat(timespec="microseconds")
    return {"type": kind, "run": run, "at": at, **fields}


def make_run_events(
    run: str, second: float, duration_s: float = 1, end: str = "completed", **fields: Any
) -> list[dict[str, Any]]:
    """A run that started and ended."""
    return [make_event("started", run, second, **fields), make_event(end, run, second + duration_s)]


def events_of(page: EventPage | None) -> list[dict[str, Any]]:
    """The events of a page that is there."""
    assert page is not None
    return [msgspec.json.decode(item) for item in page.events]


def fold_events(
    migrated_url: str,
    events: Iterable[dict[str, Any]],
    *,
    is_merged: bool = True,
    single_statement: SingleStatementLimits = DEFAULT_LIMITS,
) -> None:
    """Put events into the database by the worker's own path; their figures may wait."""
    by_shard: dict[int, list[Any]] = {}
    for item in events:
        envelope, _ = decode_event(msgspec.json.encode(item))
        by_shard.setdefault(shard_of(envelope.run, SHARDS), []).append(envelope)
    entries = [
        StreamEntry(shard, f"{next(_frames)}-0", encode_json_frame(envelopes))
        for shard, envelopes in by_shard.items()
    ]
    with connect(migrated_url, autocommit=True) as connection:
        ensure_shards(connection, SHARDS)
        committer = Committer(connection, single_statement=single_statement)
        committer.own(range(SHARDS))
        committer.commit(entries)
        if is_merged:
            merge_all_deltas(connection)


def index_all(database_url: str) -> None:
    """Bring the search index as far as the fold is, as a worker for jobs does."""
    with connect(database_url, autocommit=True) as connection:
        indexing = SearchIndexing(connection)
        while indexing.turn():
            pass

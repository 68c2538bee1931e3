"""Which runs to refold: all, those of a project, a workflow or a period, or a single one."""

from datetime import datetime
from typing import Any, Self

import msgspec
import psycopg
from msgspec import Struct

from runfold.protocol.codec import to_us
from runfold.protocol.ids import run_key_bytes
from runfold.protocol.streams import shard_of
from runfold_storage.parameters import check_name, check_time
from runfold_storage.records.rows import RunRow
from runfold_storage.rollups.deltas import HOUR_US
from runfold_storage.rollups.recompute import count_by_rollups


class Selection(Struct, frozen=True, omit_defaults=True):
    """Runs with `since` ≤ first event < `until`; `shards` is the deployment's number of shards."""

    project: str | None = None
    workflow: str | None = None
    run: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    shards: int = 0

    @classmethod
    def of(
        cls,
        shards: int,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        **names: str | None,
    ) -> Self:
        """Return a selection; raise `BadParameter`. `names` are project, workflow and run."""
        since, until = check_time("since", since), check_time("until", until)
        return cls(
            since_us=None if since is None else to_us(since),
            until_us=None if until is None else to_us(until),
            shards=shards,
            **{name: check_name(name, value) for name, value in names.items()},
        )

    def as_arguments(self) -> Any:
        """Return the arguments of a job, without defaults."""
        return msgspec.to_builtins(self)

    @property
    def is_everything(self) -> bool:
        """Return whether all runs are selected."""
        return self == Selection(shards=self.shards)

    def key_on(self, shard: int) -> tuple[bytes, ...] | None:
        """Return the key of the single run if it is on this shard; None if any run may match."""
        if self.run is None:
            return None
        return (run_key_bytes(self.run),) if shard_of(self.run, self.shards) == shard else ()

    def selects(self, row: RunRow | None) -> bool:
        """Return whether a run is selected; one without a row only if all runs are."""
        if self.run is not None:
            return True
        if row is None:
            return self.is_everything
        return (
            self.project in (None, row.project)
            and self.workflow in (None, row.workflow)
            and (self.since_us is None or row.created_us >= self.since_us)
            and (self.until_us is None or row.created_us < self.until_us)
        )

    def covers_hour(self, hour_us: int) -> bool:
        """Return whether selected runs may count in this hour."""
        return (self.since_us is None or hour_us + HOUR_US > self.since_us) and (
            self.until_us is None or hour_us < self.until_us
        )


def estimate_runs(connection: psycopg.Connection, selection: Selection) -> int:
    """Return how many runs are selected according to the statistics; 0 if unknown."""
    if selection.run is not None:
        return 1
    since_us, until_us = selection.since_us, selection.until_us
    return count_by_rollups(connection, selection.project, selection.workflow, since_us, until_us)

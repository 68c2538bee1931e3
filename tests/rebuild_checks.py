"""Runs refolded from the ledger: what differs from it, and a rebuild of what does."""

import threading

import psycopg

from frame_delivery import SHARDS
from runfold_storage.jobs import add_job
from runfold_workers.integrity.diff import Mismatch
from runfold_workers.integrity.rebuild import Progress, rebuild
from runfold_workers.integrity.repair import Findings, examine
from runfold_workers.integrity.selection import Selection

ALL_RUNS = Selection(shards=SHARDS)
NEVER_STOP = threading.Event()
"""When work that may be stopped is."""


def rebuild_all(connection: psycopg.Connection, selection: Selection = ALL_RUNS) -> Progress:
    """As `runfold rebuild` does."""
    job = add_job(connection, "rebuild", selection.as_arguments())
    return rebuild(connection, job, NEVER_STOP)


def examine_runs(
    connection: psycopg.Connection, selection: Selection = ALL_RUNS
) -> tuple[list[Mismatch], Findings]:
    """What `runfold verify` tells, and what `repair` needs."""
    found: list[Mismatch] = []
    return found, examine(connection, selection, found.append)


def find_mismatches(connection: psycopg.Connection) -> list[Mismatch]:
    """What `runfold verify` tells."""
    return examine_runs(connection)[0]

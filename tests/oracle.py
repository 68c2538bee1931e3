"""The definition of the fold, written naively: what the tables must say of a set of events.

`project` is `fold(events of each run, sorted by (at, id))` for plain dictionaries, from the words
of the contract alone. It shares with the code under test only names and rows, the key of a run,
its shard, and the bins of the histogram. It is slow and keeps everything, so that one can read it
beside DESIGN.md and see that it is right.

An event is the dictionary of its JSON, but with `at_us` (microseconds) in place of `at`.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from runfold.protocol.codec import Envelope
from runfold.protocol.ids import is_own_id, run_key_bytes
from runfold.protocol.streams import shard_of
from runfold_storage.parameters import UNKNOWN
from runfold_storage.records.histogram import bin_of
from runfold_storage.records.rollup import RollupKey
from runfold_storage.records.rows import NodeRow, RunRow

Event = dict[str, Any]
RunRef = tuple[int, bytes]
NodeRef = tuple[int, bytes, str, int]

HOUR_US = 3_600_000_000
ENVELOPE = ("type", "run", "id", "at_us")
ENDS = ("completed", "failed", "cancelled")
BEGINS = ("queued", "started")
TELL_NOT_THAT_IT_RUNS = ("queued", "annotated")
SIGNS = ("heartbeat", "lost")
"""They tell whether a run lives; which of them the ledger keeps, the definition leaves open."""
AMOUNTS = ("input_tokens", "output_tokens", "cost_nano_usd")


@dataclass(frozen=True)
class Stat:
    """One rollup row."""

    n: int = 0
    duration_count: int = 0
    duration_min_us: int | None = None
    duration_max_us: int | None = None
    duration_sum_us: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0
    bins: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Projection:
    """The rows that there must be, and the events that the ledger must have."""

    runs: dict[RunRef, RunRow]
    nodes: dict[NodeRef, NodeRow]
    stats: dict[RollupKey, Stat]
    ledger: dict[tuple[int, bytes, int], tuple[int, str, Any]]
    """(at_us, type, body) by (shard, run, event id)."""


def project(events: Iterable[Event], shards: int) -> Projection:
    """What all these events make; an event that comes twice counts once."""
    by_run: dict[str, dict[tuple[bool, int], Event]] = defaultdict(dict)
    for event in events:
        by_run[event["run"]][event["type"] == "heartbeat", event["id"]] = event
    runs: dict[RunRef, RunRow] = {}
    nodes: dict[NodeRef, NodeRow] = {}
    ledger: dict[tuple[int, bytes, int], tuple[int, str, Any]] = {}
    for run_id, of_run in by_run.items():
        shard, key = shard_of(run_id, shards), run_key_bytes(run_id)
        in_order = sorted(of_run.values(), key=stamp)
        row, node_rows = fold(run_id, shard, in_order)
        if row is None:
            continue
        runs[shard, key] = row
        nodes |= {(shard, key, node.node, node.attempt): node for node in node_rows}
        for event in in_order:
            if event["type"] not in SIGNS:
                stored = (event["at_us"], event["type"], stored_body(event))
                ledger[shard, key, event["id"]] = stored
    return Projection(runs, nodes, add_up(runs, nodes), ledger)


def stamp(event: Event) -> tuple[int, int]:
    """The order of a run's events."""
    return event["at_us"], event["id"]


def stored_body(event: Event) -> Any:
    """What the ledger has in its `body`: the further fields, and an id that is the caller's own."""
    given = {"run": event["run"]} if is_own_id(run_key_bytes(event["run"])) else {}
    return given | {name: value for name, value in event.items() if name not in ENVELOPE}


def to_envelope(event: Event) -> Envelope:
    """The event as a runner would send it."""
    fields = {name: value for name, value in event.items() if name not in ENVELOPE}
    body = json.dumps(fields, separators=(",", ":")).encode()
    return Envelope(event["type"], event["run"], event["id"], event["at_us"], body)


def fold(run_id: str, shard: int, events: list[Event]) -> tuple[RunRow | None, list[NodeRow]]:
    """The rows of one run; its events come in their order, each once."""
    told = [event for event in events if event["type"] not in SIGNS]
    if not told:
        return None, []
    key = run_key_bytes(run_id)
    queued = first(event for event in told if event["type"] == "queued")
    started = first(event for event in told if event["type"] == "started")
    end = first(event for event in told if event["type"] in ENDS)
    # A field that the contract does not name for a type is kept in the ledger, and tells nothing.
    error = (end.get("error") if end and end["type"] == "failed" else None) or {}
    exit_code = end.get("exit_code") if end and end["type"] != "cancelled" else None
    usage = end.get("usage") if end and end["type"] != "cancelled" else None
    node_rows = fold_nodes(shard, key, told)

    def described(name: str) -> Any:
        return (started or {}).get(name) or (queued or {}).get(name)

    status = "queued"
    if any(event["type"] not in TELL_NOT_THAT_IT_RUNS for event in told):
        status = "running"
    losses = [event["at_us"] for event in events if event["type"] == "lost"]
    if losses and max(losses) == max(event["at_us"] for event in events):
        status = "lost"
    if end:
        status = end["type"]
    last_attempts: dict[str, NodeRow] = {}
    for node in sorted(node_rows, key=lambda node: node.attempt):
        last_attempts[node.node] = node
    statuses = [node.status for node in last_attempts.values()]
    row = RunRow(
        shard=shard,
        run=key,
        external_id=run_id if is_own_id(key) else None,
        project=(described("project") or "default") if queued or started else UNKNOWN,
        workflow=(described("workflow") or "unnamed") if queued or started else UNKNOWN,
        status=status,
        attempt=described("attempt") or 1,
        parent_run=described("parent_run"),
        trigger_type=(described("trigger") or {}).get("type"),
        user=described("user"),
        session=described("session"),
        tags=fold_tags(told) or None,
        created_us=min(event["at_us"] for event in told),
        queued_us=at_us(queued),
        started_us=at_us(started),
        finished_us=at_us(end),
        last_event_us=max(event["at_us"] for event in events),
        duration_us=duration(started, end),
        **fold_usage(told, usage, node_rows),
        nodes_total=len(last_attempts),
        nodes_pending=statuses.count("pending"),
        nodes_running=statuses.count("running"),
        nodes_completed=statuses.count("completed"),
        nodes_failed=statuses.count("failed"),
        nodes_skipped=statuses.count("skipped"),
        nodes_cancelled=statuses.count("cancelled"),
        exit_code=exit_code,
        error_type=cut(error.get("type"), 200),
        error_message=cut(error.get("message"), 2000),
        error_node=cut(error.get("node"), 200),
    )
    return row, node_rows


def fold_nodes(shard: int, key: bytes, events: list[Event]) -> list[NodeRow]:
    """One row for each attempt at a node, and one for each node that is only planned."""
    starts: dict[tuple[str, int], Event] = {}
    finishes: dict[tuple[str, int], Event] = {}
    plans: dict[str, Event] = {}
    for event in events:
        attempt = (event.get("node", ""), event.get("attempt", 1))
        if event["type"] == "node_started":
            starts.setdefault(attempt, event)
        if event["type"] == "node_finished":
            finishes.setdefault(attempt, event)
        if event["type"] in BEGINS:
            for planned in event.get("nodes") or []:
                plans.setdefault(planned["node"], planned)
    attempts = {*starts, *finishes, *((name, 1) for name in plans)}
    return [
        fold_attempt(shard, key, attempt, starts.get(attempt), finishes.get(attempt), plans)
        for attempt in attempts
    ]


def fold_attempt(
    shard: int,
    key: bytes,
    attempt: tuple[str, int],
    start: Event | None,
    finish: Event | None,
    plans: dict[str, Event],
) -> NodeRow:
    """The row of one attempt at a node."""
    name, number = attempt
    plan = plans.get(name)
    status = "pending"
    if start:
        status = "running"
    if finish:
        status = finish.get("status") or ("completed" if finish.get("error") is None else "failed")
    parents = None
    if plan:
        parents = plan.get("parents", [])
    if start and start.get("parents") is not None:
        parents = start["parents"]
    error = (finish or {}).get("error") or {}
    return NodeRow(
        shard=shard,
        run=key,
        node=name,
        attempt=number,
        name=(start or {}).get("name") or (plan or {}).get("name") or name,
        status=status,
        node_type=(start or {}).get("node_type") or (plan or {}).get("node_type"),
        parents=parents,
        started_us=at_us(start),
        finished_us=at_us(finish),
        duration_us=duration(start, finish),
        **amounts((finish or {}).get("usage")),
        error_type=cut(error.get("type"), 200),
        error_message=cut(error.get("message"), 2000),
    )


def fold_tags(events: list[Event]) -> dict[str, str]:
    """Each tag's latest value as text; a null takes it away."""
    latest: dict[str, Any] = {}
    for event in events:
        if event["type"] in (*BEGINS, "annotated"):
            latest |= event.get("tags") or {}
    return {
        name: {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
        for name, value in latest.items()
        if value is not None
    }


def fold_usage(events: list[Event], final: Event | None, nodes: list[NodeRow]) -> dict[str, int]:
    """The end's own figure or the sum over the nodes, and what annotations add."""
    final = final or {}
    own: dict[str, int | None] = {
        "input_tokens": final.get("input_tokens"),
        "output_tokens": final.get("output_tokens"),
        "cost_nano_usd": nano_usd(final.get("cost_usd")),
    }
    late = [amounts(event.get("usage")) for event in events if event["type"] == "annotated"]
    totals = {}
    for name in AMOUNTS:
        total = own[name]
        if total is None:
            total = sum(getattr(node, name) for node in nodes)
        totals[name] = total + sum(usage[name] for usage in late)
    return totals


def amounts(usage: Event | None) -> dict[str, int]:
    """What one event says of tokens and money."""
    usage = usage or {}
    return {
        "input_tokens": usage.get("input_tokens") or 0,
        "output_tokens": usage.get("output_tokens") or 0,
        "cost_nano_usd": nano_usd(usage.get("cost_usd")) or 0,
    }


def at_us(event: Event | None) -> int | None:
    """The time of an event that there may not be."""
    return None if event is None else int(event["at_us"])


def nano_usd(cost_usd: float | None) -> int | None:
    """Whole nano-dollars."""
    return None if cost_usd is None else round(cost_usd * 1e9)


def duration(start: Event | None, end: Event | None) -> int | None:
    """What the end says, else from start to end, in microseconds."""
    if end is None:
        return None
    duration_ms: float | None = end.get("duration_ms")
    if duration_ms is not None:
        return round(duration_ms * 1000)
    return None if start is None else max(end["at_us"] - start["at_us"], 0)


def add_up(runs: dict[RunRef, RunRow], nodes: dict[NodeRef, NodeRow]) -> dict[RollupKey, Stat]:
    """The rollups: every run counts once, and every attempt at a node once under its name."""
    stats: dict[RollupKey, Stat] = {}
    for run in runs.values():
        count(stats, run, "", run)
    for node in nodes.values():
        count(stats, runs[node.shard, node.run], node.name, node)
    return stats


def count(stats: dict[RollupKey, Stat], run: RunRow, node: str, row: RunRow | NodeRow) -> None:
    hour_us = run.created_us // HOUR_US * HOUR_US
    key = RollupKey(run.workflow, run.project, node, hour_us, row.status, run.shard)
    stat = stats.get(key, Stat())
    stat = replace(
        stat,
        n=stat.n + 1,
        input_tokens=stat.input_tokens + row.input_tokens,
        output_tokens=stat.output_tokens + row.output_tokens,
        cost_nano_usd=stat.cost_nano_usd + row.cost_nano_usd,
    )
    if (length := row.duration_us) is not None:
        shortest, longest = stat.duration_min_us, stat.duration_max_us
        stat = replace(
            stat,
            duration_count=stat.duration_count + 1,
            duration_min_us=length if shortest is None else min(shortest, length),
            duration_max_us=length if longest is None else max(longest, length),
            duration_sum_us=stat.duration_sum_us + length,
            bins=stat.bins | {bin_of(length): stat.bins.get(bin_of(length), 0) + 1},
        )
    stats[key] = stat


def first(events: Iterable[Event]) -> Event | None:
    return next(iter(events), None)


def cut(text: str | None, length: int) -> str | None:
    return text and text[:length]

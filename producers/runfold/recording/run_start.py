"""The fields of a run's start, normalized to fit the contract."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import msgspec
from msgspec import Raw

from runfold.protocol.events import ABSENT, PlannedNode, Started, Trigger
from runfold.serialization.event_cleanup import normalize_tags
from runfold.serialization.normalize import (
    normalize_count,
    normalize_name,
    normalize_names,
    normalize_run_id,
)
from runfold.serialization.payloads import encode_payload
from runfold.serialization.redaction import Redactor

PlannedNodes = (
    Sequence[str | PlannedNode | Mapping[str, Any]] | Mapping[str, Sequence[str] | str | None]
)
"""Planned nodes: ids, structs or mappings of fields; or one mapping from ids to parents."""


class RunFields(TypedDict, total=False):
    """The arguments that describe a run, besides its workflow."""

    project: str | None
    inputs: object
    trigger: str | Trigger | Mapping[str, Any] | None
    user: str | None
    session: str | None
    tags: Mapping[str, Any] | None
    metadata: object
    parent_run: str | None
    attempt: int | None


class PlannedRunFields(RunFields, total=False):
    """The arguments of `Recorder.run` that describe the run."""

    nodes: PlannedNodes | None


def make_started(
    redactor: Redactor, workflow: str | None, fields: RunFields, nodes: PlannedNodes | None = None
) -> Started:
    """Return a `started` event; all values are read and encoded now."""
    given = fields.get
    parent_run = given("parent_run")
    return Started(
        workflow=normalize_name(workflow),
        project=normalize_name(given("project")),
        trigger=normalize_trigger(fields.get("trigger"), redactor),
        user=normalize_name(given("user")),
        session=normalize_name(given("session")),
        tags=normalize_tags(given("tags"), redactor),
        metadata=encode_payload(given("metadata"), redactor),
        inputs=encode_payload(given("inputs"), redactor),
        parent_run=None if not parent_run else normalize_run_id(parent_run),
        attempt=normalize_count(given("attempt"), 1, 32_767),
        nodes=normalize_planned(nodes),
    )


def payload_bytes(started: Started) -> int:
    """Return the size in bytes of the payloads."""
    data = ABSENT if started.trigger is None else started.trigger.data
    return len(started.inputs) + len(started.metadata) + len(data)


def normalize_trigger(
    trigger: str | Trigger | Mapping[str, Any] | None, redactor: Redactor
) -> Trigger | None:
    """Return a trigger from its type, a struct, or a mapping, whose further keys become data."""
    if trigger is None:
        return None
    if isinstance(trigger, Trigger):
        kind = trigger.type
        data: object = trigger.data
    elif isinstance(trigger, Mapping):
        rest = {key: value for key, value in trigger.items() if key not in ("type", "data")}
        kind, data = trigger.get("type") or "manual", trigger.get("data")
        if rest:
            data = rest if data is None else {"data": data, **rest}
    else:
        kind, data = trigger, None
    if isinstance(data, Raw) and not len(data):
        data = None
    name = normalize_name(kind)
    return None if name is None else Trigger(type=name, data=encode_payload(data, redactor))


def normalize_planned(nodes: PlannedNodes | None) -> list[PlannedNode] | None:
    """Return planned nodes, in the given order."""
    if nodes is None:
        return None
    if isinstance(nodes, Mapping):
        found: Iterable[Any] = [{"node": node, "parents": up} for node, up in nodes.items()]
    else:
        found = [nodes] if isinstance(nodes, str) else nodes
    planned = []
    for one in found:
        if isinstance(one, PlannedNode):
            fields = msgspec.structs.asdict(one)
        else:
            fields = dict(one) if isinstance(one, Mapping) else {"node": one}
        node = normalize_name(fields.get("node"))
        if node is not None:
            planned.append(
                PlannedNode(
                    node=node,
                    name=normalize_name(fields.get("name")),
                    node_type=normalize_name(fields.get("node_type")),
                    parents=normalize_names(fields.get("parents")) or [],
                )
            )
    return planned

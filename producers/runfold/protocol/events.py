"""The events that a runner may send, as frozen structs: the contract with other programs.

On the wire an event is one JSON object: the envelope (`type run id at v`) and the further fields of
its type, at one level. Here the envelope is optional, as the emitter fills it in and the ledger has
columns for it: the same structs encode and decode the *body*, the further fields alone.

Payloads (`inputs`, `outputs`, `metadata`, `trigger.data`) are `msgspec.Raw`: JSON that stays
encoded between runner and ledger. An empty `Raw` means that the field was not given.
"""

from datetime import datetime
from typing import Annotated as Bounded
from typing import ClassVar, Final, Literal

from msgspec import Meta, Raw, Struct

VERSION: Final = 1
"""The envelope's `v` that this code writes, and the highest that it reads."""

MAX_EVENT_BYTES: Final = 1024 * 1024
MAX_RAW_BYTES: Final = 16 * MAX_EVENT_BYTES
"""Of an incoming event, whose long strings are then cut until it is within `MAX_EVENT_BYTES`."""
MAX_DEPTH: Final = 128
"""Levels of nesting in a payload; more would break recursive readers."""
MAX_NAME: Final = 200
"""Characters in a run id, project, workflow, node or any other indexed name."""

ABSENT: Final = Raw()
"""A payload that was not given."""

RunId = Bounded[str, Meta(min_length=1, max_length=MAX_NAME)]
Name = Bounded[str, Meta(min_length=1, max_length=MAX_NAME)]
EventId = Bounded[int, Meta(ge=0, le=2**63 - 1)]
"""Below 2**63, as it is stored as a bigint; the number of an emitter has 31 bits."""
Attempt = Bounded[int, Meta(ge=1, le=32_767)]
ExitCode = Bounded[int, Meta(ge=-(2**31), le=2**31 - 1)]
Seconds = Bounded[float, Meta(ge=0, le=1e11)]
Milliseconds = Bounded[float, Meta(ge=0, le=1e14)]
Tokens = Bounded[int, Meta(ge=0, le=10**12)]
Dollars = Bounded[float, Meta(ge=0, le=1e6)]
Tags = dict[Name, str | int | float | bool | None]
"""Labels to filter by; null removes a tag."""

NodeEnd = Literal["completed", "failed", "skipped", "cancelled"]


class Trigger(Struct, frozen=True, omit_defaults=True):
    """What started a run: `manual`, `schedule`, `webhook`, …, with data of any shape."""

    type: Name
    data: Raw = ABSENT


class Usage(Struct, frozen=True, omit_defaults=True):
    """Tokens, and cost in US dollars."""

    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cost_usd: Dollars | None = None


class Error(Struct, frozen=True, omit_defaults=True):
    """Why a run or node failed; `node` names the node at which a run failed."""

    type: str | None = None
    message: str | None = None
    stack: str | None = None
    node: str | None = None


class PlannedNode(Struct, frozen=True, omit_defaults=True):
    """A node that is to come, so that a page can show it before it starts."""

    node: Name
    name: Name | None = None
    node_type: Name | None = None
    parents: list[Name] = []


class Event(Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type"):
    """The envelope of every event."""

    type: ClassVar[str]

    run: RunId | None = None
    id: EventId | None = None
    at: Bounded[datetime, Meta(tz=True)] | None = None
    v: int = VERSION


class _RunFields(Event, frozen=True, kw_only=True):
    workflow: Name | None = None
    project: Name | None = None
    trigger: Trigger | None = None
    user: Name | None = None
    session: Name | None = None
    tags: Tags | None = None
    metadata: Raw = ABSENT
    inputs: Raw = ABSENT
    parent_run: RunId | None = None
    attempt: Attempt | None = None
    nodes: list[PlannedNode] | None = None


class Queued(_RunFields, frozen=True, kw_only=True, tag="queued"):
    """The run waits to be started."""


class Started(_RunFields, frozen=True, kw_only=True, tag="started"):
    """The run executes; its fields take precedence over those of `queued`."""


class NodeStarted(Event, frozen=True, kw_only=True, tag="node_started"):
    """An attempt at a node began."""

    node: Name
    name: Name | None = None
    node_type: Name | None = None
    attempt: Attempt = 1
    parents: list[Name] | None = None
    inputs: Raw = ABSENT


class NodeFinished(Event, frozen=True, kw_only=True, tag="node_finished"):
    """An attempt at a node ended; without `status` it failed if there is an `error`."""

    node: Name
    attempt: Attempt = 1
    status: NodeEnd | None = None
    outputs: Raw = ABSENT
    error: Error | None = None
    usage: Usage | None = None
    duration_ms: Milliseconds | None = None


class Logged(Event, frozen=True, kw_only=True, tag="logged"):
    """Some output of the run, or of one node."""

    node: Name | None = None
    stream: Literal["stdout", "stderr", "log"] = "log"
    level: Name | None = None
    text: str


class Annotated(Event, frozen=True, kw_only=True, tag="annotated"):
    """Further facts about the run, even after its end; usage is added to the known usage."""

    tags: Tags | None = None
    metadata: Raw = ABSENT
    usage: Usage | None = None


class Heartbeat(Event, frozen=True, kw_only=True, tag="heartbeat"):
    """A sign of life; the only event that is not kept in the ledger."""


class _RunEnds(Event, frozen=True, kw_only=True):
    duration_ms: Milliseconds | None = None


class Completed(_RunEnds, frozen=True, kw_only=True, tag="completed"):
    """The run ended successfully."""

    outputs: Raw = ABSENT
    exit_code: ExitCode | None = None
    usage: Usage | None = None


class Failed(_RunEnds, frozen=True, kw_only=True, tag="failed"):
    """The run ended with an error."""

    error: Error | None = None
    outputs: Raw = ABSENT
    exit_code: ExitCode | None = None
    usage: Usage | None = None


class Cancelled(_RunEnds, frozen=True, kw_only=True, tag="cancelled"):
    """The run was ended on purpose."""

    reason: str | None = None


class Lost(Event, frozen=True, kw_only=True, tag="lost"):
    """Inferred by a worker, not sent by the runner: no sign of life for too long.

    `at` is the last known sign of life, so any event of the run with a later time revokes it.
    """

    silent_s: Seconds | None = None


EVENT_CLASSES: Final[tuple[type[Event], ...]] = (
    Queued,
    Started,
    NodeStarted,
    NodeFinished,
    Logged,
    Annotated,
    Heartbeat,
    Completed,
    Failed,
    Cancelled,
    Lost,
)
"""In the order of their numbers in packed frames and in the ledger: append, never reorder."""

for _class in EVENT_CLASSES:
    _class.type = str(_class.__struct_config__.tag)

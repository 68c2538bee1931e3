"""What the fold reads of an event's body: the contract's fields without payloads and texts.

Payloads are skipped over, not kept: a state that held one would keep the whole frame in memory.
The bodies of one type are read by one call, which costs half of reading them one by one.
"""

from collections.abc import Callable, Sequence
from types import GenericAlias
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct

from runfold.errors import BrokenEvent
from runfold.protocol.codec import TYPE_NUMBERS, TYPES, explain, replace_unstorable
from runfold.protocol.events import (
    Attempt,
    ExitCode,
    Milliseconds,
    Name,
    NodeEnd,
    PlannedNode,
    RunId,
    Tags,
    Usage,
)

HEARTBEAT: Final = TYPE_NUMBERS["heartbeat"]
LOST: Final = TYPE_NUMBERS["lost"]
SIGNS: Final = (HEARTBEAT, LOST)
"""They tell whether a run lives, and nothing else."""


class TriggerFacts(Struct, frozen=True, gc=False):
    """What set a run off."""

    type: Name


class ErrorFacts(Struct, frozen=True, gc=False):
    """Why a run or node failed, without the stack."""

    type: str | None = None
    message: str | None = None
    node: str | None = None


class RunStartFacts(Struct, frozen=True, gc=False):
    """What `queued` or `started` says of the run."""

    workflow: Name | None = None
    project: Name | None = None
    trigger: TriggerFacts | None = None
    user: Name | None = None
    session: Name | None = None
    tags: Tags | None = None
    parent_run: RunId | None = None
    attempt: Attempt | None = None
    nodes: list[PlannedNode] | None = None


class NodeStartedFacts(Struct, frozen=True, gc=False):
    """What `node_started` says."""

    node: Name
    name: Name | None = None
    node_type: Name | None = None
    attempt: Attempt = 1
    parents: list[Name] | None = None


class NodeFinishedFacts(Struct, frozen=True, gc=False):
    """What `node_finished` says."""

    node: Name
    attempt: Attempt = 1
    status: NodeEnd | None = None
    error: ErrorFacts | None = None
    usage: Usage | None = None
    duration_ms: Milliseconds | None = None


class NoFacts(Struct, frozen=True, gc=False):
    """`logged`, `heartbeat` and `lost`: that they came is all that counts."""


class AnnotatedFacts(Struct, frozen=True, gc=False):
    """What `annotated` says."""

    tags: Tags | None = None
    usage: Usage | None = None


class CompletedFacts(Struct, frozen=True, gc=False):
    """What `completed` says."""

    error: ClassVar[ErrorFacts | None] = None

    exit_code: ExitCode | None = None
    usage: Usage | None = None
    duration_ms: Milliseconds | None = None


class FailedFacts(Struct, frozen=True, gc=False):
    """What `failed` says."""

    error: ErrorFacts | None = None
    exit_code: ExitCode | None = None
    usage: Usage | None = None
    duration_ms: Milliseconds | None = None


class CancelledFacts(Struct, frozen=True, gc=False):
    """What `cancelled` says."""

    error: ClassVar[ErrorFacts | None] = None
    exit_code: ClassVar[int | None] = None
    usage: ClassVar[Usage | None] = None

    duration_ms: Milliseconds | None = None


Fact = (
    RunStartFacts
    | NodeStartedFacts
    | NodeFinishedFacts
    | NoFacts
    | AnnotatedFacts
    | CompletedFacts
    | FailedFacts
    | CancelledFacts
)
FACT_CLASSES: Final[dict[str, type[Fact]]] = {
    "queued": RunStartFacts,
    "started": RunStartFacts,
    "node_started": NodeStartedFacts,
    "node_finished": NodeFinishedFacts,
    "logged": NoFacts,
    "annotated": AnnotatedFacts,
    "heartbeat": NoFacts,
    "completed": CompletedFacts,
    "failed": FailedFacts,
    "cancelled": CancelledFacts,
    "lost": NoFacts,
}

_CLASSES: Final = [FACT_CLASSES[name] for name in TYPES]
_DECODERS: Final[list[Callable[[bytes], Any]]] = [
    msgspec.json.Decoder(cls).decode for cls in _CLASSES
]
_LIST_DECODERS: Final[list[Callable[[bytes], list[Any]]]] = [
    msgspec.json.Decoder(GenericAlias(list, (cls,))).decode for cls in _CLASSES
]
_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read_fact(kind: int, body: bytes) -> Fact:
    """One event's; `BrokenEvent` when a field has another type than the contract's."""
    try:
        fact: Fact = _DECODERS[kind](body)
    except _ERRORS as error:
        raise BrokenEvent(explain(error)) from error
    return fact


def read_facts(kinds: Sequence[int], bodies: Sequence[bytes]) -> list[Fact]:
    """Those of many events; `BrokenEvent` when any needs a closer look, without telling which."""
    places: list[list[int]] = [[] for _ in TYPES]
    for place, kind in enumerate(kinds):
        places[kind].append(place)
    facts: list[Any] = [None] * len(bodies)
    try:
        for kind, of_kind in enumerate(places):
            if of_kind:
                text = b"[" + b",".join([bodies[place] for place in of_kind]) + b"]"
                if not text.isascii():
                    text.decode()  # nobody else looks at what is skipped
                if b"\\" in text and replace_unstorable(text) is not text:
                    raise BrokenEvent("U+0000 or a lone surrogate")
                decoded = _LIST_DECODERS[kind](text)
                for place, fact in zip(of_kind, decoded, strict=True):
                    facts[place] = fact
    except (*_ERRORS, ValueError) as error:  # ValueError: one body that was two
        raise BrokenEvent(explain(error)) from error
    return facts

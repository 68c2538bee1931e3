"""What the fold reads of an event's body: the contract's fields without payloads and texts.

Payloads are skipped: a state that held one would keep its whole frame in memory. The bodies of one
type are decoded by one call, which halves the cost.
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
"""Events about liveness and nothing else."""


class TriggerFacts(Struct, frozen=True, gc=False):
    """What started a run."""

    type: Name


class ErrorFacts(Struct, frozen=True, gc=False):
    """Why a run or node failed, without the stack."""

    type: str | None = None
    message: str | None = None
    node: str | None = None


class RunStartFacts(Struct, frozen=True, gc=False):
    """Fields of `queued` and `started`."""

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
    """Fields of `node_started`."""

    node: Name
    name: Name | None = None
    node_type: Name | None = None
    attempt: Attempt = 1
    parents: list[Name] | None = None


class NodeFinishedFacts(Struct, frozen=True, gc=False):
    """Fields of `node_finished`."""

    node: Name
    attempt: Attempt = 1
    status: NodeEnd | None = None
    error: ErrorFacts | None = None
    usage: Usage | None = None
    duration_ms: Milliseconds | None = None


class NoFacts(Struct, frozen=True, gc=False):
    """No fields: of `logged`, `heartbeat` and `lost` only the arrival counts."""


class AnnotatedFacts(Struct, frozen=True, gc=False):
    """Fields of `annotated`."""

    tags: Tags | None = None
    usage: Usage | None = None


class CompletedFacts(Struct, frozen=True, gc=False):
    """Fields of `completed`."""

    error: ClassVar[ErrorFacts | None] = None

    exit_code: ExitCode | None = None
    usage: Usage | None = None
    duration_ms: Milliseconds | None = None


class FailedFacts(Struct, frozen=True, gc=False):
    """Fields of `failed`."""

    error: ErrorFacts | None = None
    exit_code: ExitCode | None = None
    usage: Usage | None = None
    duration_ms: Milliseconds | None = None


class CancelledFacts(Struct, frozen=True, gc=False):
    """Fields of `cancelled`."""

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
    """Return the facts of one event; raise `BrokenEvent` if a field has a wrong type."""
    try:
        fact: Fact = _DECODERS[kind](body)
    except _ERRORS as error:
        raise BrokenEvent(explain(error)) from error
    return fact


def read_facts(kinds: Sequence[int], bodies: Sequence[bytes]) -> list[Fact]:
    """Return the facts of many events; raise `BrokenEvent` if any has to be read by itself."""
    indexes: list[list[int]] = [[] for _ in TYPES]
    for index, kind in enumerate(kinds):
        indexes[kind].append(index)
    facts: list[Any] = [None] * len(bodies)
    try:
        for kind, of_kind in enumerate(indexes):
            if of_kind:
                text = b"[" + b",".join([bodies[index] for index in of_kind]) + b"]"
                if not text.isascii():
                    text.decode()  # msgspec does not check what it skips
                if b"\\" in text and replace_unstorable(text) is not text:
                    raise BrokenEvent("U+0000 or a lone surrogate")
                decoded = _LIST_DECODERS[kind](text)
                for index, fact in zip(of_kind, decoded, strict=True):
                    facts[index] = fact
    except (*_ERRORS, ValueError) as error:  # ValueError: one body held two objects
        raise BrokenEvent(explain(error)) from error
    return facts

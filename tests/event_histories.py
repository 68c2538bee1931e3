"""Histories to fold: what runners may send, however odd, and how it may be delivered.

`draw_history` draws small ones that look for trouble: few runs, nodes and times, so that events
collide. `generate_runs` makes many runs as a runner would write them, from a seeded generator.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard
from hypothesis import settings
from hypothesis import strategies as st

from oracle import Event, to_envelope
from runfold.protocol.codec import Envelope, decode_body, make_envelope
from runfold.protocol.frames import encode_json_frame, encode_packed_frame
from runfold.protocol.ids import derive_event_id, make_event_id
from runfold.protocol.streams import shard_of
from runfold_workers.fold.frame_decoder import StreamEntry

SHARDS = 3
NOON_US = 1_767_268_800_000_000  # 2026-01-01T12:00:00Z

RUN_IDS = (
    "019b0000-0000-7000-8000-000000000001",  # December 2025
    "019b0000-0000-7000-8000-000000000002",
    "019b76da-a800-7abc-8def-0123456789ab",  # January 2026, another partition
    "01920000-0000-7000-8000-000000000003",  # a UUIDv7 from before there was Runfold
    "019B0000-0000-7000-8000-00000000000A",  # not in lower case: the caller's own
    "nightly-report",
    'läuft "✓" \\ 🙂',
    "x" * 200,
)
TIMES_US = tuple(
    NOON_US + offset_us
    for offset_us in (0, 0, 1, 1_000, 1_500_000, 1_800_000_000, 3_600_000_000, -1, -7_200_000_000)
)


def examples(factor: float = 1) -> int:
    """Return how many examples to draw: a multiple of what the profile of this test run says."""
    return round(settings().max_examples * factor)


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A dictionary with any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def _event(event_type: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Event]:
    return _some(alien=st.just({"future": [1]}), **fields).map(
        lambda given: {"type": event_type, **given}
    )


_of = st.sampled_from
_NODES = _of(["extract", "load"])
_ATTEMPTS = _of([1, 2, 3])
_MS = _of([0, 0.0004, 1, 2.5, 2.5, 1500, 1e9])
_TAGS = st.dictionaries(
    _of(["team", "size"]), _of(["a", "b", 3, 2.5, True, False, None]), max_size=2
)
_USAGE = _some(
    input_tokens=_of([None, 0, 7, 1000]),
    output_tokens=_of([0, 11]),
    cost_usd=_of([0, 0.002, 0.1, 1e-10, 1.5]),
)
_ERROR = _some(
    type=_of(["ValueError", "T" * 300]),
    message=_of(["boom", "m" * 2500, ""]),
    stack=st.just("line 1\nline 2"),
    node=_NODES,
)
_PLAN = st.lists(
    st.builds(
        lambda node, further: {"node": node, **further},
        _NODES,
        _some(
            name=_of(["Extract", "Load"]),
            node_type=_of(["sql", "python"]),
            parents=_of([[], ["extract"]]),
        ),
    ),
    max_size=3,
)
_BEGIN = {
    "workflow": _of(["etl", "report"]),
    "project": _of(["acme", "default"]),
    "trigger": _some(data=st.just({"cron": "* * * * *"})).flatmap(
        lambda further: _of(["manual", "schedule"]).map(lambda t: {"type": t, **further})
    ),
    "user": _of(["ada", "bob"]),
    "session": st.just("s1"),
    "tags": _TAGS,
    "metadata": st.just({"deep": [{"er": "\u2028 ✓"}]}),
    "inputs": st.just([1, 2.5, "x"]),
    "parent_run": st.just("parent"),
    "attempt": _of([1, 2]),
    "nodes": _PLAN,
}
_END = {"duration_ms": _MS, "usage": _USAGE, "exit_code": _of([0, 1, -9])}

_queued = _event("queued", **_BEGIN)
_started = _event("started", **_BEGIN)
_node_started = st.builds(
    lambda event, node: event | {"node": node},
    _event(
        "node_started",
        name=_of(["Extract", "Other"]),
        node_type=_of(["sql", "python"]),
        attempt=_ATTEMPTS,
        parents=_of([[], ["extract"], None]),
        inputs=st.just({"n": 1}),
    ),
    _NODES,
)
_node_finished = st.builds(
    lambda event, node: event | {"node": node},
    _event(
        "node_finished",
        attempt=_ATTEMPTS,
        status=_of(["completed", "failed", "skipped", "cancelled"]),
        outputs=st.just({"rows": 3}),
        error=_ERROR,
        usage=_USAGE,
        duration_ms=_MS,
    ),
    _NODES,
)
_logged = _event(
    "logged", node=_NODES, stream=_of(["stdout", "stderr"]), level=st.just("info")
).map(lambda event: event | {"text": "a line"})
_annotated = _event("annotated", tags=_TAGS, usage=_USAGE)
_completed = _event("completed", outputs=st.just(1), error=_ERROR, **_END)
_failed = _event("failed", error=_ERROR, **_END)
_cancelled = _event("cancelled", reason=st.just("too late"), **_END)

_TOLD = (
    _queued,
    _started,
    _node_started,
    _node_finished,
    _node_started,
    _node_finished,
    _logged,
    _annotated,
    _completed,
    _failed,
    _cancelled,
)
_EMITTERS = _of([0, 0, 0, 7, None])
"""None: an event whose id was derived from its content."""


@dataclass(frozen=True)
class Step:
    """Frames that are folded as one batch; before it the worker may have been restarted."""

    entries: list[StreamEntry]
    restart: bool


@dataclass(frozen=True)
class History:
    """What was sent, and how it was delivered."""

    events: list[Event]
    steps: list[Step]
    max_cache_bytes: int
    """How much of it the worker may remember."""


@st.composite
def draw_runs(draw: st.DrawFn, signs: Sequence[str] = ("heartbeat",)) -> list[Event]:
    """The events of a few runs, none twice; `signs` are those that tell whether a run lives."""
    events: list[Event] = []
    any_event = st.one_of(*_TOLD, *(st.just({"type": sign}) for sign in signs))
    for run in draw(st.lists(_of(RUN_IDS), min_size=1, max_size=4, unique=True)):
        counters: dict[int, int] = {}
        for event in draw(st.lists(any_event, min_size=1, max_size=9)):
            emitter = draw(_EMITTERS)
            if emitter is None:
                event_id = derive_event_id(f"{run} {len(events)}".encode())
            else:
                event_id = make_event_id(emitter, counters.setdefault(emitter, 0))
                counters[emitter] += 1
            events.append(event | {"run": run, "id": event_id, "at_us": draw(_of(TIMES_US))})
    return events


@st.composite
def draw_history(draw: st.DrawFn, signs: Sequence[str] = ("heartbeat",)) -> History:
    """Any events in any order, cut anywhere, some delivered again, with restarts in between."""
    events = draw(draw_runs(signs))
    again = draw(st.lists(_of(events), max_size=6))
    delivered = draw(st.permutations(events + again))
    cuts = draw(
        st.lists(
            _of(["", "", "", "frame", "frame", "batch", "restart"]),
            min_size=len(delivered),
            max_size=len(delivered),
        )
    )
    steps = cut_into_steps(delivered, cuts, packed=draw(st.booleans()))
    return History(events, steps, draw(_of([0, 0, 4_000, 8_000, 1_000_000_000])))


def cut_into_steps(delivered: Sequence[Event], cuts: Sequence[str], *, packed: bool) -> list[Step]:
    """Frames and batches out of a sequence of events; each cut is made behind its event."""
    steps: list[Step] = []
    frames: list[tuple[int, list[Event]]] = []
    opened: dict[int, list[Event]] = {}
    numbers = iter(range(1, 1_000_000))
    restart = False
    for event, where in zip(delivered, [*cuts[:-1], "batch"], strict=True):
        shard = shard_of(event["run"], SHARDS)
        if shard not in opened:
            opened[shard] = []
            frames.append((shard, opened[shard]))
        opened[shard].append(event)
        if where == "frame":
            del opened[shard]
        elif where:
            entries = [
                to_entry(shard, next(numbers), sent, packed=packed) for shard, sent in frames
            ]
            steps.append(Step(entries, restart))
            restart = where == "restart"
            frames, opened = [], {}
    return steps


def to_entry(shard: int, number: int, events: Sequence[Event], *, packed: bool) -> StreamEntry:
    """A frame as a worker would read it."""
    return StreamEntry(shard, f"{number}-0", to_fields(map(to_envelope, events), packed=packed))


def to_fields(envelopes: Iterable[Envelope], *, packed: bool) -> dict[bytes, bytes]:
    """The fields of a frame."""
    if packed:
        return encode_packed_frame(list(envelopes), zstandard.ZstdCompressor())
    return encode_json_frame(envelopes)


def normalize_event(event: Event) -> Event:
    """The event with the body that the SDK makes of it: what is the default is left out."""
    body = decode_body(event["type"], to_envelope(event).body)
    envelope = make_envelope(body, run=event["run"], id=event["id"], at_us=event["at_us"])
    stamp = {name: event[name] for name in ("type", "run", "id", "at_us")}
    fields: dict[str, Any] = json.loads(envelope.body)
    return stamp | fields


def generate_runs(seed: int, events: int) -> list[list[Event]]:
    """Runs as a runner writes them, about so many events in all, each run in its own order."""
    rng = random.Random(seed)
    made: list[list[Event]] = []
    while sum(map(len, made)) < events:
        made.append(_made_up_run(rng, len(made)))
    return made


def _made_up_run(rng: random.Random, number: int) -> list[Event]:
    now_us = NOON_US + rng.randrange(-3, 3) * 3_600_000_000 + rng.randrange(3_600_000_000)
    run = f"run {number}"
    if number % 3:
        milliseconds, fraction = divmod(now_us, 1000)
        text = f"{milliseconds:012x}7{fraction:03x}8{rng.getrandbits(60):015x}"
        run = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    said: list[Event] = []

    def say(event_type: str, **fields: Any) -> None:
        nonlocal now_us
        now_us += rng.randrange(0, 2_000_000)
        said.append({"type": event_type, "run": run, "id": len(said), "at_us": now_us, **fields})

    nodes = [f"step {n}" for n in range(rng.randrange(2, 14))]
    workflow = rng.choice(["etl", "report", "train"])
    if number % 2:
        say("queued", workflow=workflow, nodes=[{"node": node} for node in nodes])
    project = rng.choice(["acme", "default"])
    say("started", workflow=workflow, project=project, tags={"team": rng.choice("abc")})
    broken = None
    for node in nodes:
        for attempt in (1, 2):
            say("node_started", node=node, attempt=attempt, inputs={"n": rng.random()})
            say("logged", node=node, text="a line of output " * rng.randrange(1, 5))
            usage = {"input_tokens": rng.randrange(1000), "cost_usd": rng.random() / 10}
            if rng.random() < 0.1:
                say("node_finished", node=node, attempt=attempt, error={"type": "OSError"})
                broken = node
            else:
                say("node_finished", node=node, attempt=attempt, usage=usage, outputs=[1])
                broken = None
                break
        say("heartbeat")
    if broken:
        say("failed", error={"type": "OSError", "message": "no route", "node": broken})
    elif number % 7:
        say("completed", exit_code=0, outputs={"ok": True})
    if number % 5 == 0:
        say("annotated", tags={"reviewed": True}, usage={"output_tokens": 5})
    return said

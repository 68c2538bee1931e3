"""From what runners put to packed frames: many events at once."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from runfold import (
    Annotated,
    Completed,
    Error,
    Event,
    Failed,
    Heartbeat,
    Logged,
    NodeFinished,
    NodeStarted,
    Queued,
    Started,
    Trigger,
    Usage,
)
from runfold.delivery.frame_packer import FramePacker
from runfold.errors import BrokenEvent
from runfold.protocol.codec import Envelope, check_body, check_numbers, replace_unstorable
from runfold.protocol.frames import FRAME_BYTES, FRAME_EVENTS, decode_frame, envelopes_in
from runfold.protocol.streams import shard_of
from runfold.serialization.event_cleanup import BufferedEvent, encode_bounded
from runfold.serialization.redaction import Redactor


def item(event: Event, run: Any = "r", number: int = 7, *, ours: bool = False) -> BufferedEvent:
    return (event, run, number, 1_700_000_000_000_000, 10, ours)


def pack(*items: BufferedEvent, packer: FramePacker | None = None) -> list[Envelope]:
    """Return the events of the frames, after checking the promises of their writer."""
    packer = packer or FramePacker(Redactor())
    frames, broken = packer.pack(items, 1)
    assert broken == []
    envelopes = [envelope for frame in frames for envelope in envelopes_in(frame.packed)]
    for envelope in envelopes:
        check_body(envelope.body)
        check_numbers(envelope.body)
        assert replace_unstorable(envelope.body) == envelope.body
        json.loads(envelope.body)
    return envelopes


payload: dict[str, Any] = {"inputs": Raw(b'{"data": "x", "n": 5}')}
EVENTS: list[Event] = [
    Started(workflow="w", project="p", **payload),
    Queued(workflow="w", metadata=Raw(b"{}"), **payload),
    NodeStarted(node="n", parents=["a"], **payload),
    NodeStarted(node="n", attempt=3),
    NodeFinished(node="n", outputs=Raw(b"[1, [2]]"), usage=Usage(input_tokens=1)),
    NodeFinished(node="n", error=Error(type="E", message="m")),
    Logged(text="plain", level="info"),
    Logged(text='quoted "text", ünïcode \U0001f600 \\ \x00'),
    Annotated(tags={"team": "a", "n": 1}),
    Heartbeat(),
    Completed(outputs=Raw(b'"text"'), exit_code=0),
    Failed(error=Error(message="m"), outputs=Raw(b'{"a": {"b": [null]}}')),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
@pytest.mark.parametrize("run", ["r", 'r"\\,é'])
@pytest.mark.parametrize("ours", [True, False])
def test_both_ways_give_the_same_bytes(event: Event, run: str, ours: bool) -> None:
    """Both paths pack an event as if it were alone, the first time and later."""
    plain = item(event, run, ours=ours)
    expected = encode_bounded(plain, Redactor())
    packer = FramePacker(Redactor())
    for _ in range(3):
        assert pack(plain, packer=packer) == [expected]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
@pytest.mark.parametrize("own", [{"run": 'r",1'}, {"id": 7}, {"run": "r", "id": 7}, {"at": 1}])
def test_an_events_own_envelope_is_not_in_its_body(event: Event, own: dict[str, Any]) -> None:
    """Run, id and time stand in columns, wherever the caller gave them."""
    if "at" in own:
        own = {"run": "r", "id": 7, "at": datetime(2000, 1, 1, 0, 0, 1, tzinfo=UTC)}
    run = own.get("run", "r")
    expected = encode_bounded(item(event, run), Redactor())
    addressed = type(event)(
        **{name: getattr(event, name) for name in event.__struct_fields__} | own
    )
    packer = FramePacker(Redactor())
    for _ in range(3):
        assert pack(item(addressed, run), packer=packer) == [expected]


@pytest.mark.parametrize(
    ("raw", "recorded"),
    [
        (b'{"password": "x"}', b'{"password":"[redacted]"}'),
        (b'{"a": [{"token": "x"}]}', b'{"a":[{"token":"[redacted]"}]}'),
        (b'{"n": 1%s}' % (b"0" * 400), b'{"n":"1%s"}' % (b"0" * 400)),
        (b'{"a": "\\ud800x"}', b'{"a": "\\ufffdx"}'),
        (b'{"a": "\\u0000x"}', b'{"a": "\\ufffdx"}'),
    ],
)
def test_a_payload_of_a_caller_is_normalized(raw: bytes, recorded: bytes) -> None:
    """Even after others with the same keys needed no change."""
    packer = FramePacker(Redactor())
    pack(item(Completed(outputs=Raw(b'{"a": "x", "n": 1}'))), packer=packer)
    [envelope] = pack(item(Completed(outputs=Raw(raw))), packer=packer)
    assert envelope.body == b'{"outputs":' + recorded + b"}"


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b'{"a": 1,}', b"nul", b'{"a": "\xff"}', b'{"a": 1e999}', b'{"a": 1} {', b"[" * 500],
)
def test_no_payload_breaks_its_event(raw: bytes) -> None:
    """Invalid or unreadable JSON becomes a text that says so, or is absent."""
    [envelope] = pack(item(NodeFinished(node="n", outputs=Raw(raw))))
    outputs = json.loads(envelope.body).get("outputs", "[not recorded: it is absent]")
    assert "not recorded" in outputs


def test_deep_payloads_are_bounded() -> None:
    """The worker is promised 128 levels at most."""
    [envelope] = pack(item(Completed(outputs=Raw(b"[" * 120 + b"]" * 120))))
    assert b"nested too deeply" in envelope.body


@pytest.mark.parametrize(
    ("event", "number"),
    [
        (Logged(text="x", id=-1), -1),
        (Logged(text="x", id=2**63), 2**63),
        (Logged(text="x", id=1.5), 1.5),  # type: ignore[arg-type]
        (Logged(text="x", stream=object()), 1),  # type: ignore[arg-type]
        (NodeFinished(node="n", usage=Usage(input_tokens=10**400)), 1),
    ],
)
def test_an_invalid_event_is_left_out_alone(event: Event, number: Any) -> None:
    """Its neighbours are packed, and it is named with its size."""
    good = item(Logged(text="x"))
    frames, [(error, size)] = FramePacker(Redactor()).pack(
        [good, item(event, number=number), good], 1
    )
    assert isinstance(error, BrokenEvent)
    assert str(error)
    assert (size, [frame.count for frame in frames]) == (10, [2])


@pytest.mark.parametrize("run", ["x" * 300, "a\0b", "a\ud800b", "", 5, None, ["r"]])
def test_an_invalid_run_id_is_normalized(run: Any) -> None:
    """It is the same run each time, and its events keep no trace of the other name."""
    packer = FramePacker(Redactor())
    event = Logged(run=run, text="x")
    found = pack(item(event, run), item(Logged(text="x"), run), packer=packer)
    assert found[0] == found[1]
    assert 1 <= len(found[0].run) <= 200


def test_a_redact_callable_sees_everything() -> None:
    """With a redact callable there is no fast path."""
    packer = FramePacker(Redactor((), lambda key, value: f"<{key}>"))
    for _ in range(2):
        [envelope] = pack(item(Logged(text="secret")), packer=packer)
        assert envelope.body == b'{"text":"<text>"}'


def test_frames_are_cut_by_number_and_by_size() -> None:
    """A frame is closed by the event that reaches a limit; one large event is a frame."""
    small = [item(Heartbeat(), ours=True)] * (FRAME_EVENTS + 5)
    large = [item(Logged(text="x" * (FRAME_BYTES // 2)), ours=True)] * 5
    packer = FramePacker(Redactor())
    assert [frame.count for frame in packer.pack(small, 1)[0]] == [FRAME_EVENTS, 5]
    assert [frame.count for frame in packer.pack(large, 1)[0]] == [2, 2, 1]


def test_each_shard_gets_its_runs_in_order() -> None:
    """Interleaved runs come out sorted by shard, and each in its own order."""
    items = [item(Heartbeat(), f"run{n % 20}", n, ours=True) for n in range(200)]
    frames, _ = FramePacker(Redactor()).pack(items, 4)
    assert sum(frame.count for frame in frames) == 200
    assert sum(frame.size for frame in frames) == 2000
    for frame in frames:
        ids = [(envelope.run, envelope.id) for envelope in envelopes_in(frame.packed)]
        assert {shard_of(run, 4) for run, _ in ids} == {frame.shard}
        assert [number for _, number in ids] == sorted(number for _, number in ids)


@given(st.integers(1, 30), st.integers(1, 9))
def test_a_frame_can_be_resharded(runs: int, shards: int) -> None:
    """For another number of shards it holds the same events, each where it is looked for."""
    packer = FramePacker(Redactor())
    items = [item(Logged(text=str(n)), f"run{n % runs}", n) for n in range(60)]
    [whole], _ = packer.pack(items, 1)
    parts = packer.reshard(whole, whole.packed, shards)
    assert sum(part.size for part in parts) == whole.size
    found = []
    for part in parts:
        events = decode_frame({b"packed": part.packed}).events
        assert part.count == len(events)
        for envelope, _ in events:
            assert shard_of(envelope.run, shards) == part.shard
            found.append(envelope)
    assert sorted(found, key=lambda one: one.id) == list(envelopes_in(whole.packed))


def test_names_that_are_too_long_are_cut_after_fine_ones() -> None:
    """Cached names do not affect other names."""
    packer = FramePacker(Redactor())
    bodies = [
        json.loads(pack(item(NodeStarted(node=node)), packer=packer)[0].body)["node"]
        for node in ("n", "n", "n" * 201)
    ]
    assert bodies == ["n", "n", "n" * 199 + "…"]


def test_triggers_and_metadata_are_redacted_after_fine_events() -> None:
    """The rare payloads of a run's start are checked each time."""
    packer = FramePacker(Redactor())
    secret = Raw(b'{"password":"hunter2"}')
    for event in (
        Started(workflow="w"),
        Started(workflow="w", metadata=secret),
        Started(workflow="w", trigger=Trigger(type="t", data=secret)),
        Started(workflow="w", tags={"api_key": "hunter2"}),
    ):
        [envelope] = pack(item(event), packer=packer)
        assert b"hunter2" not in envelope.body

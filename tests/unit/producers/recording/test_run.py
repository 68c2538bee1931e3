"""The handle of one run."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from recorded_events import Recorded
from runfold import (
    Annotated,
    Cancelled,
    Completed,
    Error,
    Failed,
    Recorder,
    Run,
    Started,
    Usage,
    current_run,
)
from runfold.delivery import process_hooks


def kinds(recorded: Recorded) -> list[str]:
    return [envelope.type for envelope, _ in recorded()]


def last(recorded: Recorded) -> Any:
    return recorded()[-1][1]


def test_a_run_is_recorded_from_beginning_to_end(recorder: Recorder, recorded: Recorded) -> None:
    """All fields of a run are in its two events."""
    with recorder.run(
        "nightly",
        project="acme",
        inputs={"day": 1},
        trigger="schedule",
        user="ann",
        session="s",
        tags={"team": "a"},
        metadata={"host": "h"},
        attempt=2,
        nodes=["extract"],
    ) as run:
        run.outputs = {"rows": 5}
        run.usage(input_tokens=1)
        run.usage(output_tokens=2, cost_usd=0.25)
        run.exit_code = 0
    (begin, started), (end, completed) = recorded()
    assert begin.run == end.run == run.id
    assert (begin.id, end.id) == (0, 1)
    assert isinstance(started, Started)
    assert (started.workflow, started.project, started.user) == ("nightly", "acme", "ann")
    assert (started.session, started.tags, started.attempt) == ("s", {"team": "a"}, 2)
    assert (bytes(started.inputs), bytes(started.metadata)) == (b'{"day":1}', b'{"host":"h"}')
    assert started.trigger is not None
    assert started.trigger.type == "schedule"
    assert started.nodes is not None
    assert [node.node for node in started.nodes] == ["extract"]
    assert isinstance(completed, Completed)
    assert bytes(completed.outputs) == b'{"rows":5}'
    assert completed.usage == Usage(1, 2, 0.25)
    assert completed.exit_code == 0
    assert completed.duration_ms is not None


def test_a_queued_run_has_waited(recorder: Recorder, recorded: Recorded) -> None:
    """The time at which it was queued is an event of its own, at that time."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    with recorder.run("w", queued_at=at):
        pass
    assert kinds(recorded) == ["queued", "started", "completed"]
    assert recorded()[0][0].at_us == int(at.timestamp()) * 1_000_000


def test_an_exception_fails_the_run_and_names_the_node(
    recorder: Recorder, recorded: Recorded
) -> None:
    """The error of the run says at which node it happened."""
    with (
        pytest.raises(ValueError, match="bad"),
        recorder.run("w") as run,
        run.node("outer"),
        run.node("inner"),
    ):
        raise ValueError("bad")
    assert kinds(recorded)[-3:] == ["node_finished", "node_finished", "failed"]
    failed = last(recorded)
    assert isinstance(failed, Failed)
    assert failed.error is not None
    assert (failed.error.type, failed.error.node) == ("ValueError", "inner")
    assert "ValueError: bad" in (failed.error.stack or "")


def _fail_and_forget(run: Run) -> None:
    with contextlib.suppress(ValueError), run.node("n"):
        raise ValueError
    raise KeyError


def test_an_exception_outside_of_nodes_names_none(recorder: Recorder, recorded: Recorded) -> None:
    """A node's error that was handled is not blamed for a later one."""
    with pytest.raises(KeyError), recorder.run("w") as run:
        _fail_and_forget(run)
    assert last(recorded).error.node is None


def test_a_node_in_a_task_group_is_named(recorder: Recorder, recorded: Recorded) -> None:
    """The exception comes wrapped in a group; its sibling ends as cancelled."""

    async def main() -> None:
        async with recorder.run("w") as run, asyncio.TaskGroup() as group:
            entered = asyncio.Event()

            async def fail() -> None:
                async with run.node("bad"):
                    await entered.wait()
                    raise ValueError

            async def wait() -> None:
                async with run.node("sibling"):
                    entered.set()
                    await asyncio.Event().wait()

            group.create_task(fail())
            group.create_task(wait())

    with pytest.raises(ExceptionGroup):
        asyncio.run(main())
    ends = {
        event.node: event.status  # type: ignore[attr-defined]
        for envelope, event in recorded()
        if envelope.type == "node_finished"
    }
    assert ends == {"bad": "failed", "sibling": "cancelled"}
    assert last(recorded).error.node == "bad"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncio.CancelledError("shutdown"), "CancelledError: shutdown"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_a_cancellation_cancels_the_run(
    recorder: Recorder, recorded: Recorded, error: BaseException, reason: str
) -> None:
    """It goes on to the caller, and usage so far is not lost."""

    def work() -> None:
        with recorder.run("w") as run:
            run.usage(input_tokens=5)
            raise error

    with pytest.raises(type(error)):
        work()
    assert kinds(recorded) == ["started", "annotated", "cancelled"]
    assert last(recorded).reason == reason
    assert recorded()[1][1] == Annotated(usage=Usage(input_tokens=5))


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [(None, "completed", 0), (0, "completed", 0), (3, "failed", 3), ("usage", "failed", 1)],
)
def test_leaving_by_sys_exit_has_an_exit_code(
    recorder: Recorder, recorded: Recorded, code: Any, kind: str, exit_code: int
) -> None:
    """0 is a good end, as for the interpreter."""
    with pytest.raises(SystemExit), recorder.run("w"):
        raise SystemExit(code)
    assert kinds(recorded)[-1] == kind
    assert last(recorded).exit_code == exit_code


def test_an_exit_code_other_than_0_is_a_failure(recorder: Recorder, recorded: Recorded) -> None:
    """A command that returned 3 has not completed."""
    with recorder.run("w") as run:
        run.exit_code = 3
    failed = last(recorded)
    assert isinstance(failed, Failed)
    assert (failed.exit_code, failed.error) == (
        3,
        Error(type="ExitCode", message="exit code 3"),
    )


def test_the_first_end_counts(recorder: Recorder, recorded: Recorded) -> None:
    """A run that was failed by hand is not completed by its block."""
    with recorder.run("w") as run:
        run.fail("quality gate")
        run.cancel("too late")
    assert kinds(recorded) == ["started", "failed"]
    assert last(recorded).error.message == "quality gate"


def test_a_run_can_be_cancelled_by_hand(recorder: Recorder, recorded: Recorded) -> None:
    """With a reason."""
    with recorder.run("w") as run:
        run.cancel("superseded")
    cancelled = last(recorded)
    assert isinstance(cancelled, Cancelled)
    assert cancelled.reason == "superseded"


def test_a_run_can_be_enriched_at_any_time(recorder: Recorder, recorded: Recorded) -> None:
    """Tags, metadata and usage, also after the end."""
    with recorder.run("w") as run:
        run.annotate(tags={"a": 1, "token": "x"}, metadata={"secret": "x"})
    run.annotate(usage={"input_tokens": 1})
    run.usage(output_tokens=2)
    events = [event for _, event in recorded() if isinstance(event, Annotated)]
    assert events[0].tags == {"a": 1, "token": "[redacted]"}
    assert bytes(events[0].metadata) == b'{"secret":"[redacted]"}'
    assert [event.usage for event in events[1:]] == [
        Usage(input_tokens=1),
        Usage(output_tokens=2),
    ]


def test_logs_and_signs_of_life_are_events(recorder: Recorder, recorded: Recorded) -> None:
    """A run can log while it runs."""
    with recorder.run("w") as run:
        run.log("to all")
        run.log("to one", node="n", stream="stdout")
        run.heartbeat()
    assert kinds(recorded) == ["started", "logged", "logged", "heartbeat", "completed"]
    bodies = [json.loads(envelope.body) for envelope, _ in recorded()[1:3]]
    assert bodies == [{"text": "to all"}, {"text": "to one", "node": "n", "stream": "stdout"}]


def test_a_run_inside_a_run_is_its_child(recorder: Recorder, recorded: Recorded) -> None:
    """The parent comes from the context, unless another one is given."""
    with recorder.run("parent") as parent:
        assert current_run() is parent
        with recorder.run("child") as child:
            assert current_run() is child
        with recorder.run("adopted", parent_run="other"):
            pass
    assert current_run() is None
    parents = {
        event.workflow: event.parent_run for _, event in recorded() if isinstance(event, Started)
    }
    assert parents == {"parent": None, "child": parent.id, "adopted": "other"}


def test_a_child_that_fails_names_the_parents_node(recorder: Recorder, recorded: Recorded) -> None:
    """Each run of a chain knows its own node that the exception left."""
    with (
        pytest.raises(ValueError, match="x"),
        recorder.run("parent") as parent,
        parent.node("call"),
        recorder.run("child") as child,
        child.node("work"),
    ):
        raise ValueError("x")
    nodes = {
        envelope.run: event.error.node
        for envelope, event in recorded()
        if isinstance(event, Failed) and event.error
    }
    assert nodes == {parent.id: "call", child.id: "work"}


def test_an_unsaved_run_records_nothing(recorder: Recorder, recorded: Recorded) -> None:
    """Not its nodes, logs, annotations, nor events emitted inside of it."""
    with recorder.run("w", save=False, inputs={"a": 1}) as run:
        with run.node("n", inputs={}) as node:
            node.outputs = {"a": 1}
            node.log("x")
        run.log("x")
        run.annotate(tags={"a": 1})
        run.usage(input_tokens=1)
        run.heartbeat()
        with recorder.run("child") as child:
            pass
    with pytest.raises(ValueError, match="x"), recorder.run("w", save=False):
        raise ValueError("x")
    assert {envelope.run for envelope, _ in recorded()} == {child.id}
    assert recorded()[0][1].parent_run is None  # type: ignore[attr-defined]


def test_a_joined_run_is_neither_begun_nor_ended(recorder: Recorder, recorded: Recorded) -> None:
    """Another process adds to a run; the process that started it ends it."""
    with recorder.join("their-run") as run:
        with run.node("n"):
            pass
        run.usage(input_tokens=1)
    with pytest.raises(ValueError, match="x"), recorder.join("their-run") as run:
        raise ValueError("x")
    assert kinds(recorded) == ["node_started", "node_finished", "annotated"]
    assert all(envelope.run == "their-run" for envelope, _ in recorded())
    assert len({envelope.id >> 32 for envelope, _ in recorded()}) == 1
    assert recorded()[0][0].id >> 32 != 0


def test_a_joined_run_is_ended_explicitly(recorder: Recorder, recorded: Recorded) -> None:
    """A supervisor can fail a run that another process opened."""
    recorder.join("their-run").fail("killed by the supervisor")
    assert kinds(recorded) == ["failed"]
    assert last(recorded).duration_ms is None


def test_an_id_of_ones_own_has_an_emitter_of_its_own(
    recorder: Recorder, recorded: Recorded
) -> None:
    """Two processes may open the same id: their events must not get the same numbers."""
    for _ in range(2):
        with recorder.run("w", id="mine"):
            pass
    ids = [envelope.id for envelope, _ in recorded()]
    assert len(set(ids)) == 4
    assert all(event_id >> 32 for event_id in ids)


def test_a_block_that_a_forked_child_leaves_is_not_ended(
    recorder: Recorder, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent that opened the run will end it; the child's events have other ids."""
    with recorder.run("w") as run, run.node("n"):
        run.heartbeat()
        monkeypatch.setattr(process_hooks, "generation", process_hooks.generation + 1)
        with run.node("childs"):
            pass
    assert kinds(recorded).count("node_finished") == 1
    assert "completed" not in kinds(recorded)
    assert {envelope.id >> 32 == 0 for envelope, _ in recorded()} == {True, False}


def test_a_block_may_be_left_in_another_context(recorder: Recorder, recorded: Recorded) -> None:
    """A generator that is closed by another thread ends its run all the same."""

    def generate() -> Iterator[int]:
        with recorder.run("w"):
            yield 1

    generator = generate()
    next(generator)
    closer = threading.Thread(target=generator.close)  # type: ignore[attr-defined]
    closer.start()
    closer.join()
    assert kinds(recorded) == ["started", "cancelled"]


def test_threads_may_share_a_run(recorder: Recorder, recorded: Recorded) -> None:
    """Nodes of several threads get different numbers."""
    with recorder.run("w") as run:

        def work(name: str) -> None:
            for _ in range(50):
                with run.node(name):
                    pass

        threads = [threading.Thread(target=work, args=(f"n{n}",)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ids = [envelope.id for envelope, _ in recorded()]
    assert sorted(ids) == list(range(202))

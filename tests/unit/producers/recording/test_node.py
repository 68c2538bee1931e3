"""The handle of one node."""

import asyncio
import json
import threading
from typing import Any

import pytest

from recorded_events import Recorded
from runfold import NodeFinished, NodeStarted, Recorder, Usage, current_node


def finished(recorded: Recorded) -> list[NodeFinished]:
    return [event for _, event in recorded() if isinstance(event, NodeFinished)]


def test_a_node_is_recorded_from_beginning_to_end(recorder: Recorder, recorded: Recorded) -> None:
    """Inputs, names and parents at the start; outputs, usage and duration at the end."""
    with (
        recorder.run("w") as run,
        run.node(
            "extract", name="Extract rows", node_type="sql", parents=["a"], inputs={"day": 1}
        ) as node,
    ):
        node.outputs = {"rows": 2}
        node.usage(input_tokens=1, cost_usd=0.5)
        node.usage(input_tokens=2)
    events = [event for _, event in recorded()]
    begun, end = events[1], events[2]
    assert isinstance(begun, NodeStarted)
    assert (begun.node, begun.name, begun.node_type) == ("extract", "Extract rows", "sql")
    assert (begun.attempt, begun.parents, bytes(begun.inputs)) == (1, ["a"], b'{"day":1}')
    assert isinstance(end, NodeFinished)
    assert (end.node, end.attempt, end.status) == ("extract", 1, "completed")
    assert bytes(end.outputs) == b'{"rows":2}'
    assert end.usage == Usage(input_tokens=3, cost_usd=0.5)
    assert end.duration_ms is not None
    assert end.duration_ms >= 0


def test_an_exception_fails_the_node_and_goes_on(recorder: Recorder, recorded: Recorded) -> None:
    """The caller gets its own exception; the outputs so far are kept."""
    error = ValueError("bad")

    def work() -> None:
        with recorder.run("w") as run, run.node("n") as node:
            node.outputs = {"partial": 1}
            raise error

    with pytest.raises(ValueError, match="bad") as caught:
        work()
    assert caught.value is error
    (end,) = finished(recorded)
    assert end.status == "failed"
    assert end.error is not None
    assert (end.error.type, end.error.message) == ("ValueError", "bad")
    assert "test_node.py" in (end.error.stack or "")
    assert bytes(end.outputs) == b'{"partial":1}'


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt()])
def test_a_cancellation_cancels_the_node(
    recorder: Recorder, recorded: Recorded, error: BaseException
) -> None:
    """A cancellation is not a failure of the node."""
    with pytest.raises(type(error)), recorder.run("w") as run, run.node("n"):
        raise error
    assert [end.status for end in finished(recorded)] == ["cancelled"]


def test_a_skipped_node_stays_skipped(recorder: Recorder, recorded: Recorded) -> None:
    """The first end counts; leaving the block adds none."""
    with recorder.run("w") as run, run.node("n") as node:
        node.skip()
    assert [end.status for end in finished(recorded)] == ["skipped"]


def test_a_node_works_without_a_block(recorder: Recorder, recorded: Recorded) -> None:
    """Frameworks with callbacks begin and end a node in different functions."""
    run = recorder.run("w").start()
    node = run.node("n").start().start()
    node.fail("no rows")
    node.complete()
    run.complete()
    (end,) = finished(recorded)
    assert (end.status, end.error and end.error.message) == ("failed", "no rows")
    assert len(recorded()) == 4


def test_a_cancelled_node_keeps_its_reason(recorder: Recorder, recorded: Recorded) -> None:
    """Why it was cancelled stands in the error's message."""
    with recorder.run("w") as run, run.node("n") as node:
        node.cancel("superseded")
    (end,) = finished(recorded)
    assert (end.status, end.error and end.error.message) == ("cancelled", "superseded")


def test_a_repeated_node_is_the_next_attempt(recorder: Recorder, recorded: Recorded) -> None:
    """A retry, or a loop, loses nothing and does not invent nodes."""
    with recorder.run("w") as run:
        for _ in range(2):
            with run.node("n"):
                pass
        with run.node("n", attempt=7):
            pass
        with run.node("n"):
            pass
    assert [end.attempt for end in finished(recorded)] == [1, 2, 7, 8]


def test_attempts_of_several_threads_differ(recorder: Recorder, recorded: Recorded) -> None:
    """A step that several threads take at once is not folded into one."""
    with recorder.run("w") as run:

        def work() -> None:
            for _ in range(100):
                with run.node("n"):
                    pass

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(end.attempt for end in finished(recorded)) == list(range(1, 301))


def test_outputs_are_read_when_they_are_assigned(recorder: Recorder, recorded: Recorded) -> None:
    """A later change of the same object is not recorded."""
    rows = [1]
    with recorder.run("w") as run, run.node("n") as node:
        node.outputs = rows
        rows.append(2)
        assert node.outputs is rows
    (end,) = finished(recorded)
    assert json.loads(bytes(end.outputs)) == [1]


def test_outputs_after_the_end_are_reported(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """What is set too late is logged."""
    with recorder.run("w") as run, run.node("n") as node:
        pass
    node.outputs = {}
    assert "were set after its end" in caplog.text


def test_the_current_node_is_known(recorder: Recorder) -> None:
    """Code deep inside a node finds it, and only there."""
    with recorder.run("w") as run, run.node("outer") as outer:
        with run.node("inner") as inner:
            assert current_node() is inner
        assert current_node() is outer
    assert current_node() is None


def test_nodes_of_concurrent_tasks_do_not_mix(recorder: Recorder) -> None:
    """Each task sees its own node."""

    async def step(run: Any, name: str) -> None:
        async with run.node(name) as node:
            await asyncio.sleep(0)
            assert current_node() is node

    async def main() -> None:
        async with recorder.run("w") as run:
            await asyncio.gather(*(step(run, f"n{n}") for n in range(5)))

    asyncio.run(main())


def test_logs_of_a_node_name_it(recorder: Recorder, recorded: Recorded) -> None:
    """A node's own text is shown beside it."""
    with recorder.run("w") as run, run.node("n") as node:
        node.log("hello", level="info", stream="stderr")
    (logged,) = [event for envelope, event in recorded() if envelope.type == "logged"]
    assert (logged.node, logged.text, logged.level, logged.stream) == (  # type: ignore[attr-defined]
        "n",
        "hello",
        "info",
        "stderr",
    )


@pytest.mark.parametrize("name", ["", None, "x" * 300, "a\ud800", 5])
def test_any_name_will_do(recorder: Recorder, recorded: Recorded, name: Any) -> None:
    """A strange name does not break the runner, nor the event."""
    with recorder.run("w") as run, run.node(name):
        pass
    assert len(finished(recorded)) == 1

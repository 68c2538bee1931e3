"""Functions whose calls are recorded."""

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest

from recorded_events import Recorded
from runfold import NodeFinished, NodeStarted, Recorder, Started, current_node, current_run


def payloads(recorded: Recorded) -> list[tuple[str, object, object]]:
    found = []
    for envelope, _ in recorded():
        body = json.loads(envelope.body)
        found.append((envelope.type, body.get("inputs"), body.get("outputs")))
    return found


def test_a_function_becomes_a_workflow_with_nodes(recorder: Recorder, recorded: Recorded) -> None:
    """Arguments are inputs, results are outputs, names are the functions'."""

    @recorder.node
    def double(x: int) -> int:
        return 2 * x

    @recorder.workflow
    def compute(x: int, *, offset: int = 1) -> int:
        return double(x) + offset

    assert compute(3, offset=4) == 10
    assert payloads(recorded) == [
        ("started", {"x": 3, "offset": 4}, None),
        ("node_started", {"x": 3}, None),
        ("node_finished", None, 6),
        ("completed", None, 10),
    ]
    started, node = recorded()[0][1], recorded()[1][1]
    assert isinstance(started, Started)
    assert started.workflow == "compute"
    assert isinstance(node, NodeStarted)
    assert node.node == "double"


def test_async_functions_stay_async(recorder: Recorder, recorded: Recorded) -> None:
    """The run lasts until the coroutine has ended; concurrent nodes find their run."""

    @recorder.node(name="step", node_type="io")
    async def step(x: int) -> int:
        await asyncio.sleep(0)
        return x

    @recorder.workflow(name="flow", project="acme", tags={"a": 1})
    async def flow() -> list[int]:
        return list(await asyncio.gather(step(1), step(2)))

    assert asyncio.iscoroutinefunction(flow)
    assert asyncio.run(flow()) == [1, 2]
    events = [event for _, event in recorded()]
    assert isinstance(events[0], Started)
    assert (events[0].workflow, events[0].project, events[0].tags) == ("flow", "acme", {"a": 1})
    ends = [event for event in events if isinstance(event, NodeFinished)]
    assert [(end.node, end.attempt) for end in ends] == [("step", 1), ("step", 2)]
    assert recorded()[-1][0].type == "completed"


def test_exceptions_pass_through(recorder: Recorder, recorded: Recorded) -> None:
    """The caller sees what the function raised; the run has failed."""

    @recorder.workflow
    def fail() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert [envelope.type for envelope, _ in recorded()] == ["started", "failed"]


def test_a_wrong_call_raises_what_it_would_anyway(recorder: Recorder, recorded: Recorded) -> None:
    """Reading the arguments does not hide Python's own error."""

    @recorder.workflow
    def plain(x: int) -> None: ...

    @recorder.workflow
    def starred(x: int, *rest: int) -> None: ...

    functions: tuple[Callable[..., None], ...] = (plain, starred)
    for function in functions:
        with pytest.raises(TypeError, match="unexpected keyword argument 'y'"):
            function(1, y=2)
    assert [envelope.type for envelope, _ in recorded()] == ["started", "failed"] * 2


def test_methods_are_recorded_without_self(recorder: Recorder, recorded: Recorded) -> None:
    """The object is no argument of the workflow."""

    class Job:
        @recorder.workflow
        def work(self, *parts: int) -> int:
            return sum(parts)

    assert Job().work(1, 2) == 3
    assert payloads(recorded)[0] == ("started", {"parts": [1, 2]}, None)


def test_capturing_can_be_switched_off(recorder: Recorder, recorded: Recorded) -> None:
    """Large or private arguments need not be read."""

    @recorder.workflow(capture_inputs=False, capture_outputs=False)
    def private(x: int) -> int:
        return x

    assert private(5) == 5
    assert payloads(recorded) == [("started", None, None), ("completed", None, None)]


def test_each_call_reads_the_current_handles(recorder: Recorder) -> None:
    """A decorated function can reach its run and its node."""

    @recorder.node
    def work() -> tuple[str | None, str | None]:
        node, run = current_node(), current_run()
        assert node is not None
        assert run is not None
        return node.id, run.workflow

    @recorder.workflow
    def flow() -> tuple[str | None, str | None]:
        return work()

    assert flow() == ("work", "flow")


def test_a_node_outside_of_a_run_is_only_a_function(
    recorder: Recorder, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    """It works, is not recorded, and logs that once."""

    @recorder.node
    def alone(x: int) -> int:
        return x

    assert [alone(1), alone(2)] == [1, 2]
    assert recorded() == []
    # Emitters of tests before this one may have something to say, too.
    messages = [record.getMessage() for record in caplog.records if record.module == "decorators"]
    assert messages == ["node alone was called outside of a run: not recorded"]


def test_an_unsaved_workflow_records_nothing(recorder: Recorder, recorded: Recorded) -> None:
    """`save=False` holds for decorated functions, and the nodes inside."""

    @recorder.node
    def inner() -> None: ...

    @recorder.workflow(save=False)
    def flow() -> None:
        inner()

    flow()
    assert recorded() == []


def test_generators_are_refused(recorder: Recorder) -> None:
    """A generator's call ends before its work begins: that would be recorded wrongly."""

    def generate() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="is a generator"):
        recorder.workflow(generate)
    with pytest.raises(TypeError, match="is a generator"):
        recorder.node(name="n")(generate)


def test_a_decorated_function_keeps_its_name(recorder: Recorder) -> None:
    """Other decorators and documentation see the function itself."""

    @recorder.workflow
    def documented() -> None:
        """What it does."""

    assert (documented.__name__, documented.__doc__) == ("documented", "What it does.")

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runfold.protocol import codec
from runfold.protocol.codec import Envelope
from runfold.protocol.events import MAX_EVENT_BYTES, Completed, NodeFinished, NodeStarted, Started
from runfold_stack.errors import StackError
from runfold_stack.importers.wfformat import (
    Instance,
    WfFormatError,
    count_events,
    events,
    read_instance,
    schedule,
)
from runfold_stack.importers.wfformat.instance import read_date
from runfold_stack.importers.wfformat.payloads import workflow_name

REAL = Path(__file__).parents[4] / "../shared/data/wfinstances"
REAL_FILES = sorted(REAL.glob("*.json"))

Json = dict[str, Any]


def task(task_id: str, runtime_s: float, *parents: str, **execution: Any) -> tuple[Json, Json]:
    """A planned task and its execution; `reads` and `writes` are its files."""
    plan = {
        "id": task_id,
        "name": f"{task_id} name",
        "parents": list(parents),
        "children": [],
        "inputFiles": execution.pop("reads", []),
        "outputFiles": execution.pop("writes", []),
    }
    return plan, {"id": task_id, "runtimeInSeconds": runtime_s, **execution}


def document(*tasks: tuple[Json, Json], **execution: Any) -> Json:
    return {
        "name": "chain-0",
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {
                "tasks": [plan for plan, _ in tasks],
                "files": execution.pop("files", []),
            },
            "execution": {
                "makespanInSeconds": 10,
                "executedAt": "2020-04-01T03:50:43Z",
                "tasks": [measured for _, measured in tasks],
                **execution,
            },
        },
    }


def write(folder: Path, content: object, name: str = "instance.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(folder: Path, content: object) -> Instance:
    return read_instance(write(folder, content))


def machine(name: str, cores: int) -> Json:
    return {"nodeName": name, "cpu": {"coreCount": cores}}


def bodies(instance: Instance) -> list[Any]:
    return [codec.decode_body(e.type, e.body) for e in events(instance, project=None)]


def payload(raw: msgspec.Raw) -> Json:
    decoded: Json = msgspec.json.decode(raw)
    return decoded


# The timetable


def test_a_chain_runs_one_after_the_other(tmp_path: Path) -> None:
    """Each task of a chain starts at the moment its parent ends."""
    instance = read(tmp_path, document(task("a", 1.5), task("b", 2, "a"), task("c", 0.25, "b")))
    assert schedule(instance) == {"a": (0, 1.5), "b": (1.5, 3.5), "c": (3.5, 3.75)}


def test_a_join_waits_for_the_last_parent(tmp_path: Path) -> None:
    """Without a limit the branches run at once, and the join starts when the slowest ends."""
    instance = read(
        tmp_path,
        document(task("a", 1), task("b", 2, "a"), task("c", 5, "a"), task("d", 1, "b", "c")),
    )
    assert schedule(instance) == {"a": (0, 1), "b": (1, 3), "c": (1, 6), "d": (6, 7)}


def test_a_machine_runs_as_many_tasks_as_it_has_cores(tmp_path: Path) -> None:
    """The third task on a machine of two cores starts when the first core is free."""
    tasks = [
        task(name, runtime_s, machines=["m"]) for name, runtime_s in (("a", 3), ("b", 2), ("c", 1))
    ]
    instance = read(tmp_path, document(*tasks, machines=[machine("m", 2)]))
    assert schedule(instance) == {"a": (0, 3), "b": (0, 2), "c": (2, 3)}


def test_a_task_takes_the_cores_that_it_requires(tmp_path: Path) -> None:
    """Two tasks of one and a half cores do not fit on two cores together; on three they do."""
    tasks = [task(name, 1, machines=["m"], coreCount=1.5) for name in "ab"]
    two = read(tmp_path, document(*tasks, machines=[machine("m", 2)]))
    three = read(tmp_path, document(*tasks, machines=[machine("m", 3)]))
    assert schedule(two) == {"a": (0, 1), "b": (1, 2)}
    assert schedule(three) == {"a": (0, 1), "b": (0, 1)}


def test_a_task_that_requires_too_much_takes_the_whole_machine(tmp_path: Path) -> None:
    """A task with more cores than its machine runs alone on it instead of never."""
    tasks = [task("a", 1, machines=["m"]), task("b", 1, machines=["m"], coreCount=64)]
    instance = read(tmp_path, document(*tasks, machines=[machine("m", 4)]))
    assert schedule(instance) == {"a": (0, 1), "b": (1, 2)}


def test_a_small_task_does_not_overtake_a_large_one(tmp_path: Path) -> None:
    """Tasks go in the order in which they became ready, so that a large one is not starved."""
    tasks = [
        task("a", 2, machines=["m"]),
        task("large", 1, machines=["m"], coreCount=2),
        task("small", 1, machines=["m"]),
    ]
    instance = read(tmp_path, document(*tasks, machines=[machine("m", 2)]))
    assert schedule(instance) == {"a": (0, 2), "large": (2, 3), "small": (3, 4)}


def test_a_task_on_several_machines_waits_for_all_of_them(tmp_path: Path) -> None:
    """It starts when each of its machines is free, and occupies each of them."""
    tasks = [
        task("a", 1, machines=["m"]),
        task("b", 2, machines=["n"]),
        task("both", 1, machines=["m", "n"]),
        task("c", 1, machines=["m"]),
    ]
    instance = read(tmp_path, document(*tasks, machines=[machine("m", 1), machine("n", 1)]))
    assert schedule(instance) == {"a": (0, 1), "b": (0, 2), "both": (2, 3), "c": (3, 4)}


def test_the_only_machine_is_the_one_of_tasks_that_name_none(tmp_path: Path) -> None:
    """Two tasks that could run side by side share its one core."""
    instance = read(tmp_path, document(task("a", 2), task("b", 1), machines=[machine("m", 1)]))
    assert schedule(instance) == {"a": (0, 2), "b": (2, 3)}


@pytest.mark.parametrize("names", [None, ["elsewhere"], ["coreless"]])
def test_an_unknown_machine_has_no_limit(tmp_path: Path, names: list[str] | None) -> None:
    """No machine, one that is not described, and one without a core count limit nothing."""
    where = {} if names is None else {"machines": names}
    tasks = [task(name, 1, **where) for name in "abc"]
    described = [machine("m", 1), {"nodeName": "coreless"}]
    instance = read(tmp_path, document(*tasks, machines=described))
    assert set(schedule(instance).values()) == {(0, 1)}


def test_a_task_that_never_ran_delays_no_other(tmp_path: Path) -> None:
    """It has no times and no events but stays planned; its children wait for its parents."""
    content = document(task("a", 2), task("b", 0, "a"), task("c", 1, "b"))
    del content["workflow"]["execution"]["tasks"][1]
    instance = read(tmp_path, content)
    assert schedule(instance) == {"a": (0, 2), "c": (2, 3)}
    started, *others = bodies(instance)
    assert {node.node for node in started.nodes} == {"a", "b", "c"}
    assert all(getattr(event, "node", None) != "b" for event in others)
    assert len(others) + 1 == count_events(instance)


# The events


def test_the_events_hold_the_whole_file(tmp_path: Path) -> None:
    """Graph, command, files, cpu, memory and machine stand in the events, under their names."""
    tasks = [
        task(
            "split",
            1.5,
            reads=["genome"],
            writes=["part"],
            command={"program": "/usr/bin/splitter", "arguments": ["-n", "2"]},
            machines=["m"],
            coreCount=2,
            priority=20,
        ),
        task(
            "merge",
            0.009611,
            "split",
            reads=["part", "other"],
            writes=["result"],
            avgCPU=160.8619,
            memoryInBytes=3000000,
            readBytes=1,
            writtenBytes=2,
        ),
    ]
    content = document(
        *tasks,
        machines=[machine("m", 48)],
        files=[{"id": "genome", "sizeInBytes": 9}, {"id": "result", "sizeInBytes": 0}],
    )
    content |= {
        "name": "genome-20200401T035039Z-0",
        "description": "A trace",
        "createdAt": "2020-04-01T20:22:32Z",
        "author": {"name": "rafsilva", "email": "support@example.org"},
        "runtimeSystem": {"name": "Pegasus", "version": "4.9.3"},
        "unknown": {"is": "ignored"},
    }
    instance = read_instance(write(tmp_path, content, "genome-001.json"))
    started, split, split_end, merge, merge_end, completed = bodies(instance)

    assert isinstance(started, Started)
    assert started.workflow == "genome"
    assert started.trigger is not None
    assert started.trigger.type == "import"
    assert started.tags == {"runtime_system": "Pegasus"}
    assert started.nodes is not None
    assert [(n.node, n.name, n.node_type, n.parents) for n in started.nodes] == [
        ("split", "split name", "splitter", []),
        ("merge", "merge name", None, ["split"]),
    ]
    assert payload(started.inputs) == {
        "inputFiles": [{"id": "genome", "sizeInBytes": 9}, {"id": "other"}]
    }
    assert payload(started.metadata) == {
        "name": "genome-20200401T035039Z-0",
        "source": "genome-001.json",
        "schemaVersion": "1.5",
        "executedAt": "2020-04-01T03:50:43Z",
        "makespanInSeconds": 10,
        "createdAt": "2020-04-01T20:22:32Z",
        "description": "A trace",
        "author": {"name": "rafsilva", "email": "support@example.org"},
        "runtimeSystem": {"name": "Pegasus", "version": "4.9.3"},
        "machines": [{"nodeName": "m", "cpu": {"coreCount": 48}}],
    }

    assert isinstance(split, NodeStarted)
    assert (split.node, split.name, split.node_type, split.parents) == (
        "split",
        "split name",
        "splitter",
        [],
    )
    assert payload(split.inputs) == {
        "command": {"program": "/usr/bin/splitter", "arguments": ["-n", "2"]},
        "inputFiles": [{"id": "genome", "sizeInBytes": 9}],
        "machines": ["m"],
        "coreCount": 2,
        "priority": 20,
    }
    assert isinstance(split_end, NodeFinished)
    assert split_end.duration_ms == 1500
    assert isinstance(merge, NodeStarted)
    assert merge.parents == ["split"]
    assert isinstance(merge_end, NodeFinished)
    assert merge_end.status == "completed"
    assert merge_end.duration_ms == 0.009611 * 1000
    assert payload(merge_end.outputs) == {
        "outputFiles": [{"id": "result", "sizeInBytes": 0}],
        "avgCPU": 160.8619,
        "memoryInBytes": 3000000,
        "readBytes": 1,
        "writtenBytes": 2,
    }
    assert isinstance(completed, Completed)
    assert completed.duration_ms == 10_000
    assert payload(completed.outputs) == {"outputFiles": [{"id": "result", "sizeInBytes": 0}]}


def test_events_come_in_order_of_time_and_cause(tmp_path: Path) -> None:
    """At one time a task's end comes before its child's start, even if it took no time."""
    instance = read(tmp_path, document(task("a", 1), task("b", 0, "a"), task("c", 1, "b")))
    sent_events = list(events(instance, project=None))
    begin_us = codec.to_us(datetime(2020, 4, 1, 3, 50, 43, tzinfo=UTC))
    assert [(e.type, e.id, (e.at_us - begin_us) / 1e6) for e in sent_events] == [
        ("started", 0, 0),
        ("node_started", 1, 0),
        ("node_finished", 2, 1),
        ("node_started", 3, 1),
        ("node_finished", 4, 1),
        ("node_started", 5, 1),
        ("node_finished", 6, 2),
        ("completed", 7, 10),
    ]


def test_the_run_does_not_end_before_its_last_node(tmp_path: Path) -> None:
    """A makespan that is too short stays the duration but does not move the end forward."""
    instance = read(tmp_path, document(task("a", 3), makespanInSeconds=2))
    *_, node_end, end = events(instance, project=None)
    assert end.at_us == node_end.at_us
    assert bodies(instance)[-1].duration_ms == 2000


def test_a_second_import_gives_the_same_events(tmp_path: Path) -> None:
    """The same content gives the same run and events, also when it is laid out otherwise."""
    content = document(task("a", 1), task("b", 1, "a"))
    first = read(tmp_path, content)
    turned = dict(reversed(list(content.items())))
    second = read(tmp_path, json.dumps(turned, indent=4))
    assert list(events(first, project=None)) == list(events(second, project=None))


def test_other_content_or_another_project_is_another_run(tmp_path: Path) -> None:
    """A changed file does not mix with the earlier one, nor one tenant's import with another's."""
    first = read(tmp_path, document(task("a", 1)))
    second = read(tmp_path, document(task("a", 2)))

    def run(instance: Instance, project: str | None) -> str:
        return next(iter(events(instance, project=project))).run

    assert run(first, None).startswith("wfformat:chain-0:")
    assert run(first, None) == run(first, "default")
    assert len({run(first, None), run(second, None), run(first, "acme")}) == 3


@pytest.mark.parametrize(
    ("name", "workflow"),
    [
        ("1000genome-20200401T035039Z-0", "1000genome"),
        ("montage-0", "montage"),
        ("montage", "montage"),
        ("chain-5-0.6-1-0-1683736566.json", "chain-5-0.6-1-0"),
        ("forkjoin-10", "forkjoin-10"),
        ("-0", "-0"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_the_workflow_is_the_name_without_the_execution(name: str, workflow: str) -> None:
    """Executions of one workflow share a name; numbers that say which workflow it is stay."""
    assert workflow_name(name) == workflow


def test_a_script_is_of_the_type_of_its_process(tmp_path: Path) -> None:
    """Where the program is a whole script, the node's type is the last part of the task's name."""
    plan, measured = task("t", 1, command={"program": "[ -f x ] &&\n  samtools sort x"})
    plan["name"] = "NFCORE_RNASEQ.RNASEQ:SAMTOOLS_SORT"
    instance = read(tmp_path, document((plan, measured)))
    assert bodies(instance)[1].node_type == "SAMTOOLS_SORT"


def test_long_ids_become_short_ones_that_differ(tmp_path: Path) -> None:
    """Ids beyond the contract's 200 characters stay apart, and parents name them alike."""
    a, b = "t" * 300 + "a", "t" * 300 + "b"
    instance = read(tmp_path, document(task(a, 1), task(b, 1, a)))
    started, first, _, second, *_ = bodies(instance)
    assert first.node != second.node
    assert second.parents == [first.node]
    assert [node.node for node in started.nodes] == [first.node, second.node]
    assert max(map(len, (first.node, second.node))) <= 200


@pytest.mark.slow
def test_what_does_not_fit_is_cut_visibly(tmp_path: Path) -> None:
    """Every event stays within the contract's size, and marks what it left out."""
    files = [f"folder/of/some/length/file-{number:06}" for number in range(20_000)]
    parents = [task(f"parent-{number:05}" + "p" * 100, 1) for number in range(9_000)]
    last = task(
        "last",
        1,
        *(plan["id"] for plan, _ in parents),
        reads=files,
        writes=[f"{file}.out" for file in files],
        command={"program": "s" * 100_000, "arguments": files},
    )
    sent_events = list(events(read(tmp_path, document(*parents, last)), project=None))
    for envelope in (sent_events[0], sent_events[-3], sent_events[-2], sent_events[-1]):
        assert len(codec.encode_event(envelope)) <= MAX_EVENT_BYTES
    started = codec.decode_body("started", sent_events[0].body)
    assert isinstance(started, Started)
    assert started.nodes is not None
    assert payload(started.metadata)["nodesCut"] == {"kept": len(started.nodes), "of": 9_001}
    node = codec.decode_body("node_started", sent_events[-3].body)
    assert isinstance(node, NodeStarted)
    inputs = payload(node.inputs)
    assert inputs["parentsCut"]["of"] == 9_000
    assert inputs["inputFilesCut"] == {"kept": len(inputs["inputFiles"]), "of": 20_000}
    assert inputs["command"]["argumentsCut"]["of"] == 20_000
    assert inputs["command"]["program"].endswith("… [cut: 100000 characters]")


# Dates


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20200401T035043+0000", "2020-04-01T03:50:43+00:00"),
        ("2023-03-29T15:45:52-10:00", "2023-03-30T01:45:52+00:00"),
        ("2020-12-25T20:10:08+00:00", "2020-12-25T20:10:08+00:00"),
        ("05-10-23T16:23:32Z", "2023-05-10T16:23:32+00:00"),
        ("2020-12-30T02:24:13.540715", "2020-12-30T02:24:13.540715+00:00"),
    ],
)
def test_dates_are_read_in_every_form_found(text: str, expected: str) -> None:
    """Basic and extended ISO 8601, month-day-year, and no offset as UTC."""
    assert read_date(text) == datetime.fromisoformat(expected)


# What cannot be imported


def changed(change: str) -> Json:
    """A valid document in which one thing is wrong."""
    content = document(task("a", 1), task("b", 1, "a"))
    workflow = content["workflow"]
    planned, executed = workflow["specification"]["tasks"], workflow["execution"]["tasks"]
    match change:
        case "no version":
            del content["schemaVersion"]
        case "no workflow":
            del content["workflow"]
        case "old version":
            content["schemaVersion"] = "1.3"
        case "flat":
            content |= {"schemaVersion": "1.4", "workflow": {"tasks": [], "executedAt": "x"}}
        case "never ran":
            del workflow["execution"]
        case "unplanned":
            executed.append({"id": "ghost", "runtimeInSeconds": 1})
        case "ran twice":
            executed.append(executed[0])
        case "planned twice":
            planned.append(planned[0])
        case "no parent":
            planned[1]["parents"] = ["ghost"]
        case "cycle":
            planned[0]["parents"] = ["b"]
        case "own parent":
            planned[0]["parents"] = ["a"]
        case "date":
            workflow["execution"]["executedAt"] = "last Tuesday"
        case "year":
            workflow["execution"]["executedAt"] = "9999-12-31T23:59:59Z"
        case "negative":
            executed[1]["runtimeInSeconds"] = -1
        case "no tasks":
            planned.clear()
    return content


@pytest.mark.parametrize(
    ("change", "place", "remedy"),
    [
        ("no version", "schemaVersion is missing", "WfInstances"),
        ("no workflow", "workflow is missing", "WfInstances"),
        ("old version", "schemaVersion is '1.3'", "supported are '1.4', '1.5', '1.6'"),
        ("flat", "workflow.tasks is the flat layout", "wfcommons-migrate-instance.py"),
        ("never ran", "workflow.execution is missing", "import an instance that has run"),
        ("unplanned", "workflow.execution.tasks[2] 'ghost' ran but is not", "add it there"),
        ("ran twice", "workflow.execution.tasks[2] 'a' occurs twice", "remove one"),
        ("planned twice", "workflow.specification.tasks[2] 'a' occurs twice", "its own id"),
        ("no parent", "workflow.specification.tasks[1].parents 'b' names", "add that task"),
        ("cycle", "cycle (a <- b <- a)", "remove one of the dependencies"),
        ("own parent", "cycle (a <- a)", "remove one of the dependencies"),
        ("date", "workflow.execution.executedAt is 'last Tuesday'", "ISO 8601"),
        ("year", "workflow.execution ends outside the years", "correct executedAt"),
        ("negative", "$.workflow.execution.tasks[1].runtimeInSeconds", "correct that place"),
        ("no tasks", "$.workflow.specification.tasks", "correct that place"),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_remedy(
    tmp_path: Path, change: str, place: str, remedy: str
) -> None:
    """The error names the file, the place in it and what to do."""
    path = write(tmp_path, changed(change))
    with pytest.raises(WfFormatError) as raised:
        read_instance(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert place in message
    assert remedy in message
    assert isinstance(raised.value, StackError)


@pytest.mark.parametrize("content", ["", "{", "[" * 10_000, '{"a": 1e999}', "\x1f\x8b"])
def test_what_is_not_json_is_refused(tmp_path: Path, content: str) -> None:
    """A truncated, compressed or hostile file is an error with the file's name, no crash."""
    with pytest.raises(WfFormatError, match=r"instance\.json: not JSON: .*; check that"):
        read(tmp_path, content)


@pytest.mark.parametrize("content", ["[]", "null", '"text"'])
def test_what_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    """Other JSON than an object is not WfFormat."""
    with pytest.raises(WfFormatError, match="not WfFormat"):
        read(tmp_path, content)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """An unreadable path is an error of the import, not of Python."""
    with pytest.raises(WfFormatError, match="No such file"):
        read_instance(tmp_path / "absent.json")


@pytest.mark.parametrize("version", ["1.4", "1.5", "1.6"])
def test_versions_of_the_same_layout_are_read(tmp_path: Path, version: str) -> None:
    """1.6 only adds to 1.5, and a 1.4 with that layout is taken as well."""
    instance = read(tmp_path, document(task("a", 1)) | {"schemaVersion": version})
    assert len(instance.tasks) == 1


# Real files


@pytest.mark.skipif(not REAL_FILES, reason=f"no real WfFormat files in {REAL}")
@pytest.mark.parametrize("path", REAL_FILES, ids=[path.stem for path in REAL_FILES])
def test_a_real_file_comes_back_from_its_events(path: Path) -> None:
    """Nodes, parents, durations, start and makespan equal an independent reading of the JSON."""
    workflow = json.loads(path.read_text())["workflow"]
    execution = workflow["execution"]
    instance = read_instance(path)
    sent_events = list(events(instance, project=None))
    assert len(sent_events) == count_events(instance) == 2 + 2 * len(execution["tasks"])
    assert [envelope.id for envelope in sent_events] == list(range(len(sent_events)))
    assert [envelope.at_us for envelope in sent_events] == sorted(
        envelope.at_us for envelope in sent_events
    )
    sent = [_through_the_wire(envelope) for envelope in sent_events]

    assert isinstance(started := sent[0][1], Started)
    parents = {t["id"]: t["parents"] for t in workflow["specification"]["tasks"]}
    assert {node.node: node.parents for node in started.nodes or []} == parents

    starts = {e.node: (us, e) for us, e in sent if isinstance(e, NodeStarted)}
    ends = {e.node: (us, e) for us, e in sent if isinstance(e, NodeFinished)}
    assert {node: event.parents for node, (_, event) in starts.items()} == parents
    assert {node: event.duration_ms for node, (_, event) in ends.items()} == {
        t["id"]: t["runtimeInSeconds"] * 1000 for t in execution["tasks"]
    }
    runtimes_us = {t["id"]: round(t["runtimeInSeconds"] * 1e6) for t in execution["tasks"]}
    for node, (start_us, _) in starts.items():
        assert ends[node][0] - start_us == runtimes_us[node]
        assert all(ends[parent][0] <= start_us for parent in parents[node])

    begin_us = sent_events[0].at_us
    assert codec.to_rfc3339(begin_us)[:19] == _start_of(execution["executedAt"])
    assert isinstance(completed := sent[-1][1], Completed)
    assert completed.duration_ms == execution["makespanInSeconds"] * 1000
    assert max(us for us, _ in ends.values()) <= sent[-1][0]
    # What was recorded includes queueing and transfer, so a sound timetable fits into it.
    assert sent[-1][0] - begin_us == round(execution["makespanInSeconds"] * 1e6)


def _through_the_wire(envelope: Envelope) -> tuple[int, Any]:
    again, event = codec.decode_event(codec.encode_event(envelope))
    assert again[:4] == envelope[:4]
    return again.at_us, event


def _start_of(text: str) -> str:
    """The start in UTC, read by cutting the text: the files use three forms of date."""
    if text[8] == "T" and text[2] != "-":
        return f"{text[:4]}-{text[4:6]}-{text[6:8]}T{text[9:11]}:{text[11:13]}:{text[13:15]}"
    if text[2] == "-":
        return f"20{text[6:8]}-{text[:5]}T{text[9:17]}"
    offset_hours = int(text[19:22])
    at = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()
    return datetime.fromtimestamp(at - 3600 * offset_hours, UTC).isoformat()[:19]


@pytest.mark.parametrize(
    "start", ["0001-01-01T00:00:00Z", "1999-12-31T23:59:59Z", "9998-12-31T00:00:00Z"]
)
def test_a_trace_of_a_wrong_clock_is_refused_before_its_first_event(
    tmp_path: Path, start: str
) -> None:
    """A clock that was never set must not stretch every chart."""
    content = document(task("a", 5.0))
    content["workflow"]["execution"]["executedAt"] = start
    instance = read_instance(write(tmp_path, content))
    with pytest.raises(WfFormatError, match=r"the start: .* is out of bounds.*correct executedAt"):
        next(events(instance, project=None, latest_us=codec.to_us(datetime.now(UTC))))


def test_a_trace_that_would_end_in_the_future_is_refused(tmp_path: Path) -> None:
    """Its runtimes are wrong, or the clock of its machine was."""
    content = document(task("a", 5.0))
    content["workflow"]["execution"]["executedAt"] = datetime.now(UTC).isoformat()
    instance = read_instance(write(tmp_path, content))
    now_us = codec.to_us(datetime.now(UTC))
    with pytest.raises(WfFormatError, match=r"the end: .* is out of bounds"):
        next(events(instance, project=None, latest_us=now_us))


def test_an_execution_without_tasks_has_its_makespan(tmp_path: Path) -> None:
    """Its times are checked all the same."""
    content = document(task("a", 5.0))
    content["workflow"]["execution"]["tasks"] = []
    instance = read_instance(write(tmp_path, content))
    assert [each.type for each in events(instance, project=None)] == ["started", "completed"]

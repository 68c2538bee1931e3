"""The tasks of an instance as a graph in which every parent exists and no cycle."""

from pathlib import Path

from msgspec import Struct

from .schema import Execution, Specification, refuse


class Task(Struct, frozen=True):
    """A planned task with its measurements; `execution` is None if it never ran."""

    id: str
    name: str
    parents: tuple[str, ...]
    input_files: tuple[str, ...]
    output_files: tuple[str, ...]
    execution: Execution | None


def join_tasks(
    path: Path, planned: tuple[Specification, ...], executed: tuple[Execution, ...]
) -> tuple[Task, ...]:
    """Return the planned tasks in the file's order with executions; raise `WfFormatError`."""
    place = "workflow.execution.tasks"
    measured: dict[str, Execution] = {}
    known = {task.id for task in planned}
    for number, execution in enumerate(executed):
        if execution.id in measured:
            refuse(path, f"{place}[{number}]", f"{execution.id!r} occurs twice; remove one")
        if execution.id not in known:
            refuse(
                path,
                f"{place}[{number}]",
                f"{execution.id!r} ran but is not in workflow.specification.tasks; "
                "add it there or remove it here",
            )
        measured[execution.id] = execution
    tasks: dict[str, Task] = {}
    place = "workflow.specification.tasks"
    for number, task in enumerate(planned):
        if task.id in tasks:
            refuse(path, f"{place}[{number}]", f"{task.id!r} occurs twice; give each its own id")
        for parent in task.parents:
            if parent not in known:
                refuse(
                    path,
                    f"{place}[{number}].parents",
                    f"{task.id!r} names the parent {parent!r}, which does not exist; "
                    "add that task or remove the name",
                )
        tasks[task.id] = Task(
            id=task.id,
            name=task.name or task.id,
            parents=tuple(dict.fromkeys(task.parents)),
            input_files=task.input_files,
            output_files=task.output_files,
            execution=measured.get(task.id),
        )
    cycle = _find_cycle(tasks)
    if cycle:
        refuse(
            path,
            place,
            f"the parents form a cycle ({' <- '.join(cycle)}), so none of these tasks can "
            "start; remove one of the dependencies",
        )
    return tuple(tasks.values())


def _find_cycle(tasks: dict[str, Task]) -> list[str]:
    """Return a cycle of tasks with the first one repeated at the end; empty if there is none."""
    waiting = {task.id: len(task.parents) for task in tasks.values()}
    children: dict[str, list[str]] = {task: [] for task in tasks}
    for task in tasks.values():
        for parent in task.parents:
            children[parent].append(task.id)
    free = [task for task, count in waiting.items() if not count]
    while free:
        done = free.pop()
        del waiting[done]
        for child in children[done]:
            waiting[child] -= 1
            if not waiting[child]:
                free.append(child)
    if not waiting:
        return []
    # Every remaining task has a remaining parent, so following parents must close a cycle.
    trail = [next(iter(waiting))]
    seen = {trail[0]: 0}
    while True:
        parent = next(parent for parent in tasks[trail[-1]].parents if parent in waiting)
        trail.append(parent)
        if parent in seen:
            return trail[seen[parent] :]
        seen[parent] = len(trail) - 1

"""Compute when each task ran: WfFormat records durations, but need not record start times.

The rule is list scheduling. A task starts when its last parent has ended and its machines have
free slots:

- A machine has `machines[].cpu.coreCount` slots ("number of CPU cores"). A task takes `coreCount`
  slots ("number of cores required by the task", possibly fractional; default one) on each machine
  that it names, for as long as it runs. A task that requires more than a machine has takes all.
- A task that names no machine runs on the file's only machine, if there is exactly one. This
  brings Nextflow's files closer to the recorded makespan.
- Other tasks without a machine, and tasks on machines without a core count, have no limit.
- Each machine starts tasks in the order in which they became ready, then in the file's order.
- A planned task that did not run takes no time; its children wait for its parents.

The quotes are from the schema of github.com/wfcommons/WfFormat. The computed makespan of real files
is below the recorded one, which includes queueing and data transfer; with one slot per machine it
would exceed it.
"""

from collections.abc import Iterable
from graphlib import TopologicalSorter
from heapq import heappop, heappush
from typing import Final

from .instance import Instance
from .schema import Execution

_PARTS: Final = 1000
"""Slots are counted in thousandths, and times in microseconds, so that sums stay exact."""


def schedule(instance: Instance) -> dict[str, tuple[float, float]]:
    """Return start and end of each task, in seconds after `executed_at`, in the order of start."""
    times = _Timetable(instance).run()
    return {task: (start / 1e6, end / 1e6) for task, (start, end) in times.items()}


class _Timetable:
    """Tasks are identified by their position in the file; a queue holds (ready at, position)."""

    def __init__(self, instance: Instance) -> None:
        self._tasks = instance.tasks
        self._executions = instance.executions
        self._free = {
            machine.node_name: machine.cpu.core_count * _PARTS
            for machine in instance.execution.machines
            if machine.cpu is not None and machine.cpu.core_count is not None
        }
        names = [machine.node_name for machine in instance.execution.machines]
        default = names if len(names) == 1 else []
        self._claims = [
            _claims(instance.executions.get(task.id), self._free, default) for task in self._tasks
        ]
        self._queues: dict[str, list[tuple[int, int]]] = {machine: [] for machine in self._free}
        self._running: list[tuple[int, int]] = []
        self._times: dict[str, tuple[int, int]] = {}
        positions = {task.id: position for position, task in enumerate(self._tasks)}
        self._order = TopologicalSorter[int]()
        for position, task in enumerate(self._tasks):
            self._order.add(position, *(positions[parent] for parent in task.parents))
        self._order.prepare()

    def run(self) -> dict[str, tuple[int, int]]:
        self._admit(0, sorted(self._order.get_ready()))
        while self._running:
            now = self._running[0][0]
            freed: dict[str, None] = {}  # ordered, so that the result is deterministic
            while self._running and self._running[0][0] == now:
                _, position = heappop(self._running)
                for machine, parts in self._claims[position].items():
                    self._free[machine] += parts
                    freed[machine] = None
                self._order.done(position)
            self._admit(now, sorted(self._order.get_ready()), freed)
        return self._times

    def _admit(self, now: int, ready: list[int], freed: Iterable[str] = ()) -> None:
        """Queue ready tasks, then start each task that is first in all its queues and fits."""
        to_check = list(freed)
        for position in ready:
            claims = self._claims[position]
            if not claims:
                self._start(now, position)
            for machine in claims:
                heappush(self._queues[machine], (now, position))
            to_check.extend(claims)
        # The oldest waiting task is first in all of its queues, so no task waits forever.
        while to_check:
            queue = self._queues[to_check.pop()]
            while queue:
                first = queue[0]
                claims = self._claims[first[1]]
                if any(
                    self._queues[machine][0] != first or self._free[machine] < parts
                    for machine, parts in claims.items()
                ):
                    break
                for machine, parts in claims.items():
                    heappop(self._queues[machine])
                    self._free[machine] -= parts
                if len(claims) > 1:
                    to_check.extend(claims)
                self._start(now, first[1])

    def _start(self, now: int, position: int) -> None:
        task_id = self._tasks[position].id
        end = now
        if (execution := self._executions.get(task_id)) is not None:
            end += round(execution.runtime_in_seconds * 1e6)
            self._times[task_id] = (now, end)
        heappush(self._running, (end, position))


def _claims(
    execution: Execution | None, capacity: dict[str, int], default: list[str]
) -> dict[str, int]:
    """Return the parts of slots that the task takes on each of its limited machines."""
    if execution is None:
        return {}
    cores = 1.0 if execution.core_count is None else execution.core_count
    parts = max(1, round(cores * _PARTS))
    return {
        machine: min(parts, capacity[machine])
        for machine in execution.machine_names() or default
        if machine in capacity
    }

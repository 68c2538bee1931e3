"""Read executions in WfCommons' WfFormat as the events of one run each.

    instance = read_instance(path)
    for envelope in events(instance, project=None):
        ...

The file's graph, runtimes, files and machines are preserved. Only the start time of each task is
computed, because WfFormat need not record it: see `timetable`. The same file always yields the same
run with the same events, so a second import, or one after a crash, changes nothing.
"""

from .instance import Instance, read_instance
from .run_events import count_events, events
from .schema import WfFormatError
from .timetable import schedule

__all__ = [
    "Instance",
    "WfFormatError",
    "count_events",
    "events",
    "read_instance",
    "schedule",
]

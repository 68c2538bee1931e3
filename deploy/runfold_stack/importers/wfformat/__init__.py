"""Real executions in WfCommons' WfFormat, as the events of one run each.

    instance = read_instance(path)
    for envelope in events(instance, project=None):
        ...

The file's graph, runtimes, files and machines come back unchanged. Only the time at which each
task started is computed, because WfFormat does not have to record it: see `timetable`. Reading
the same file again gives the same run with the same events, so a second import changes nothing.
"""

from .errors import WfFormatError
from .graph import Task
from .instance import Instance, read_instance
from .run_events import count_events, events
from .timetable import schedule

__all__ = [
    "Instance",
    "Task",
    "WfFormatError",
    "count_events",
    "events",
    "read_instance",
    "schedule",
]

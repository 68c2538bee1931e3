"""Read executions in WfCommons' WfFormat as the events of one run each.

The file's graph, runtimes, files and machines are preserved. Only the start time of each task is
computed, because WfFormat need not record it: see `timetable`.
"""

from .instance import Instance, read_instance
from .run_events import count_events, events
from .schema import WfFormatError
from .timetable import schedule

__all__ = ["Instance", "WfFormatError", "count_events", "events", "read_instance", "schedule"]

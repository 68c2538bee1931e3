"""Runfold's SDK: record what runs, without the runner noticing.

from runfold import Recorder

recorder = Recorder()
with recorder.run("nightly-report", inputs={"day": "2026-11-21"}) as run:
    with run.node("extract") as node:
        node.outputs = {"rows": 120}
"""

from .emitter import Flushed
from .errors import BrokenEvent, BrokenFrame, RunfoldError, SettingInvalid, ShardsDiffer
from .events import (
    Annotated,
    Cancelled,
    Completed,
    Error,
    Event,
    Failed,
    Heartbeat,
    Logged,
    NodeFinished,
    NodeStarted,
    PlannedNode,
    Queued,
    Started,
    Trigger,
    Usage,
)
from .ids import make_run_id
from .nodes import Node, current_node
from .recorder import Recorder
from .recording import RecordedNode
from .runs import Run, current_run
from .settings import Settings

__all__ = [
    "Annotated",
    "BrokenEvent",
    "BrokenFrame",
    "Cancelled",
    "Completed",
    "Error",
    "Event",
    "Failed",
    "Flushed",
    "Heartbeat",
    "Logged",
    "Node",
    "NodeFinished",
    "NodeStarted",
    "PlannedNode",
    "Queued",
    "RecordedNode",
    "Recorder",
    "Run",
    "RunfoldError",
    "SettingInvalid",
    "Settings",
    "ShardsDiffer",
    "Started",
    "Trigger",
    "Usage",
    "current_node",
    "current_run",
    "make_run_id",
]

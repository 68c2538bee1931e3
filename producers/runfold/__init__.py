"""Runfold's SDK: record executions without slowing down what executes.

from runfold import Recorder

recorder = Recorder()
with recorder.run("nightly-report", inputs={"day": "2026-11-21"}) as run:
    with run.node("extract") as node:
        node.outputs = {"rows": 120}
"""

from runfold.delivery.emitter import Flushed
from runfold.protocol.events import (
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
from runfold.protocol.ids import make_run_id
from runfold.recording.finished_execution import RecordedNode
from runfold.recording.node import Node, current_node
from runfold.recording.recorder import Recorder
from runfold.recording.run import Run, current_run

from .errors import BrokenEvent, BrokenFrame, RunfoldError, SettingInvalid, ShardsDiffer
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

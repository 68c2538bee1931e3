"""The parts of WfFormat's JSON that Runfold uses, with the format's own bounds, and its error.

Source: the JSON schema and README of github.com/wfcommons/WfFormat. 1.6 only adds optional
fields to 1.5. Up to 1.4 the schema was flat (`workflow.tasks` with files and runtimes inside).
Other fields are ignored, as the format requires of readers.
"""

from pathlib import Path
from typing import Annotated, Final, NoReturn

from msgspec import Meta, Struct, field, structs

from runfold_stack.errors import StackError

VERSIONS: Final = ("1.4", "1.5", "1.6")
"""1.4 is accepted if it has the layout below, which some converters write."""

Text = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
"""At most 30 years: in microseconds, floats represent this and sums of a few exactly."""
Number = int | float


class WfFormatError(StackError):
    """A file cannot be imported; the message names the place, the reason and the remedy."""


def refuse(path: Path, place: str, what: str) -> NoReturn:
    raise WfFormatError(f"{path}: {place} {what}")


class _Part(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A JSON object with names in camel case, and without absent values."""


class Command(_Part, frozen=True):
    program: str | None = None
    arguments: tuple[str, ...] = ()


class Execution(_Part, frozen=True):
    id: Text
    runtime_in_seconds: Seconds
    executed_at: str | None = None
    command: Command | None = None
    core_count: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    avg_cpu: Number | None = field(default=None, name="avgCPU")
    read_bytes: Number | None = None
    written_bytes: Number | None = None
    memory_in_bytes: Number | None = None
    energy_in_kwh: Number | None = field(default=None, name="energyInKWh")
    avg_power_in_w: Number | None = None
    priority: Number | None = None
    machines: tuple[Text, ...] | None = None
    machine: Text | None = None
    """The only machine, in early files of version 1.5."""

    def machine_names(self) -> tuple[str, ...]:
        """Return the machines that the task ran on, each once."""
        if self.machines is not None:
            return tuple(dict.fromkeys(self.machines))
        return () if self.machine is None else (self.machine,)


class Task(_Part, frozen=True):
    """One planned task; `children` is ignored, because it repeats `parents` in reverse."""

    id: Text
    parents: tuple[str, ...]
    name: str = ""
    input_files: tuple[str, ...] = ()
    output_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        structs.force_setattr(self, "name", self.name or self.id)
        structs.force_setattr(self, "parents", tuple(dict.fromkeys(self.parents)))


class File(_Part, frozen=True):
    id: str
    size_in_bytes: Number


class Cpu(_Part, frozen=True):
    core_count: Annotated[int, Meta(ge=1)] | None = None
    speed_in_mhz: Number | None = field(default=None, name="speedInMHz")
    vendor: str | None = None


class Machine(_Part, frozen=True):
    node_name: Text
    system: str | None = None
    architecture: str | None = None
    release: str | None = None
    memory_in_bytes: Number | None = None
    cpu: Cpu | None = None


class RuntimeSystem(_Part, frozen=True):
    name: Text
    version: str | None = None
    url: str | None = None


class Author(_Part, frozen=True):
    name: str | None = None
    email: str | None = None
    institution: str | None = None
    country: str | None = None


class SpecificationPart(_Part, frozen=True):
    tasks: Annotated[tuple[Task, ...], Meta(min_length=1)]
    files: tuple[File, ...] = ()


class ExecutionPart(_Part, frozen=True):
    makespan_in_seconds: Seconds
    executed_at: str
    tasks: tuple[Execution, ...]
    machines: tuple[Machine, ...] = ()


class Workflow(_Part, frozen=True):
    specification: SpecificationPart
    execution: ExecutionPart | None = None
    repo: str | None = None
    run_name: str | None = None


class Document(_Part, frozen=True):
    name: Text
    schema_version: str
    workflow: Workflow
    description: str | None = None
    created_at: str | None = None
    author: Author | None = None
    runtime_system: RuntimeSystem | None = None

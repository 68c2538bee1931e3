"""Print one run: summary, error, nodes with time bars, payloads."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Raw
from rich.text import Text

from runfold_storage.queries.run.detail import NodeDetail, RunDetail

from .formats import bar, dollars, duration, moment, time_axis, tokens
from .output import STYLES, Output, cell, make_table, plain, shown_name

MAX_NODES: Final = 200
_MAX_PAYLOAD: Final = 2000


def print_run(run: RunDetail, output: Output, *, now: datetime) -> None:
    """Print everything except events and output."""
    console = output.console
    for name, value in _head(run, now):
        console.print(Text.assemble((f"{name:<10}", "bold"), value), soft_wrap=True)
    note = _retention_note(run)
    if note:
        output.line()
        output.line(note, "yellow")
    if run.error is not None:
        error = run.error
        output.line()
        where = f" at node {error.node}" if error.node else ""
        words = ": ".join(part for part in (error.type, error.message) if part)
        output.line(plain(f"error{where}: {words}"), STYLES["failed"])
        if error.stack:
            output.line(plain(error.stack.rstrip()))
    if run.nodes:
        output.line()
        _print_nodes(run, output, now)
    for title, payload in (
        ("inputs", run.inputs),
        ("outputs", run.outputs),
        ("metadata", run.metadata),
    ):
        if payload is not None:
            output.line()
            output.line(title, "bold")
            output.line(_shortened(payload))


def _head(run: RunDetail, now: datetime) -> Iterator[tuple[str, Text]]:
    yield "run", Text(plain(run.id))
    yield "workflow", Text(shown_name(run.workflow))
    if run.project != "default":
        yield "project", Text(shown_name(run.project))
    if run.incomplete:
        yield "note", Text("incomplete: neither `queued` nor `started` has arrived")
    status = Text(run.status, STYLES.get(run.status, ""))
    if run.exit_code is not None:
        status += Text(f"  (exit code {run.exit_code})")
    if run.reason:
        status += Text(f"  ({plain(run.reason)})")
    yield "status", status
    yield "started", Text(moment(run.started_at or run.queued_at))
    took = run.duration_ms
    if took is None and run.status == "running" and run.started_at is not None:
        took = max(0.0, (now - run.started_at).total_seconds() * 1000)
    if took is not None:
        yield "duration", Text(duration(took))
    optional: tuple[tuple[str, str | None], ...] = (
        ("attempt", str(run.attempt) if run.attempt > 1 else None),
        ("trigger", run.trigger_type),
        ("parent", run.parent_run),
        ("user", run.user),
        ("session", run.session),
        ("tags", " ".join(f"{key}={value}" for key, value in sorted(run.tags.items()))),
        ("tokens", tokens(run.usage)),
        ("cost", dollars(run.usage.cost_usd)),
    )
    for name, text in optional:
        if text:
            yield name, Text(plain(text))


def _retention_note(run: RunDetail) -> str | None:
    """Return what retention has removed from the run or archived; None for a complete run."""
    if run.source == "archive":
        without = ", without its payloads" if run.payloads == "removed" else ""
        return f"from the archive, as this run has expired{without}"
    when = f" on {run.payloads_removed_at:%Y-%m-%d}" if run.payloads_removed_at else ""
    match run.payloads:
        case "archived":
            return f"inputs, outputs and events are from the archive: they expired{when}"
        case "removed":
            return f"inputs, outputs and events have expired{when}"
        case "unavailable":
            return (
                f"inputs, outputs and events have expired{when}, and the archive cannot be read at"
                " the moment"
            )
        case _:
            return None


def _print_nodes(run: RunDetail, output: Output, now: datetime) -> None:
    bars = ["TIME"] if output.is_terminal else []
    table = make_table("NODE", "STATUS", "AFTER", "DURATION", *bars, right=("DURATION",))
    axis = time_axis(run.nodes, now)
    for node in run.nodes[:MAX_NODES]:
        name = cell(node.name)
        if node.attempt > 1:
            name += f" (attempt {node.attempt})"
        style = STYLES.get(node.status, "")
        table.add_row(
            name,
            Text(node.status, style),
            _parents(node),
            duration(node.duration_ms),
            *(Text(bar(node, axis, now), style) for _ in bars),
        )
    output.table(table)
    if len(run.nodes) > MAX_NODES:
        output.line(f"… and {len(run.nodes) - MAX_NODES} more: `--json` prints all")
    for node in run.nodes[:MAX_NODES]:
        is_other_error = run.error is None or run.error.node != node.node
        if node.error is not None and is_other_error:
            words = ": ".join(part for part in (node.error.type, node.error.message) if part)
            output.line()
            output.line(plain(f"error of {node.name}: {words}"), STYLES["failed"])
            if node.error.stack:
                output.line(plain(node.error.stack.rstrip()))


def _parents(node: NodeDetail) -> str:
    names = [cell(parent) for parent in node.parents[:3]]
    more = len(node.parents) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _shortened(payload: Raw) -> str:
    text = plain(_pretty(msgspec.json.decode(payload)))
    if len(text) <= _MAX_PAYLOAD:
        return text
    return f"{text[:_MAX_PAYLOAD]} … ({len(text):,} characters; `--json` prints all)"


def _pretty(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "\n".join(f"  {key}: {_inline(item)}" for key, item in value.items())
    return f"  {_inline(value)}"


def _inline(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()

"""One report in JSON, and one table that prints each figure beside its goal."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figures
from benchmarks.goals import FIGURES, Figure


def write(path: Path, figures: Figures, context: dict[str, Any]) -> None:
    """Everything, with every repeat."""
    report = {
        **context,
        "goals": {
            figure.name: _judge(figure, figures) for figure in FIGURES if figure.goal is not None
        },
        "figures": figures.as_json(),
        "skipped": figures.skipped,
        "notes": figures.notes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def show(figures: Figures, title: str) -> None:
    """The table, on standard output; never narrower than it needs."""
    table = Table(title=title)
    table.add_column("figure", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("min … max", justify="right", no_wrap=True)
    table.add_column("goal", justify="right", no_wrap=True)
    table.add_column("verdict")
    for figure in FIGURES:
        _add_row(table, figure, figures)
    for name, times in figures.notes.get("read", {}).get("top", {}).items():
        for kind in ("sql", "http"):
            p50, p99 = times[f"{kind}_p50"], times[f"{kind}_p99"]
            table.add_row(f"{name}, {kind}, p50 / p99", f"{p50:.2f} / {p99:.2f} ms")
    console = Console()
    console.width = max(console.width, 140)
    console.print(table)


def _add_row(table: Table, figure: Figure, figures: Figures) -> None:
    value = figure.judged(figures)
    goal = ""
    if figure.goal is not None:
        goal = f"{'≥' if figure.at_least is not None else '≤'} {figure.goal:,g} {figure.unit}"
    if value is None:
        if figure.name in figures.skipped:
            table.add_row(figure.meaning, "–", "", goal, f"skipped: {figures.skipped[figure.name]}")
        return
    values = figures.values(figure.name)
    spread = f"{_number(min(values))} … {_number(max(values))}" if len(values) > 1 else ""
    colour = "" if figure.goal is None else "green" if figure.is_met(value) else "red"
    verdict = f"[{colour}]{figure.verdict(value)}[/]" if colour else ""
    unit = "" if figure.unit == "ratio" else f" {figure.unit}"
    table.add_row(figure.meaning, f"{_number(value)}{unit}", spread, goal, verdict)


def _judge(figure: Figure, figures: Figures) -> dict[str, Any]:
    value = figure.judged(figures)
    bound = {"at_least": figure.at_least} if figure.at_most is None else {"at_most": figure.at_most}
    if value is None:
        return {**bound, "unit": figure.unit, "measured": None, "met": None}
    return {
        **bound,
        "unit": figure.unit,
        "measured": value,
        "met": figure.is_met(value),
        "verdict": figure.verdict(value),
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"

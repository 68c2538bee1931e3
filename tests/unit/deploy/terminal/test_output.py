"""Tables in windows of any width: shown cells are whole, omitted columns are named."""

from io import StringIO

import pytest
from rich.console import Console

from runfold_stack.terminal.output import Output
from runfold_stack.terminal.tables import Table

RUN = "01a1fd29-0494-7526-ad36-89888e8203f3"


def printed(width: int) -> None:
    """Print a list of runs into a window of so many columns."""
    output = Output()
    output.__dict__["console"] = Console(file=StringIO(), width=width, markup=False)
    table = Table("STATUS", "RUN", "WORKFLOW", "STARTED", "DURATION", "ERROR")
    table.add_row("completed", RUN, "nightly-report", "2026-11-21 08:11:26Z", "3.6 ms", "")
    table.add_row("failed", "short", "x" * 50, "2026-11-21 08:11:25Z", "12 s", "Boom: " * 20)
    output.table(table)


@pytest.mark.parametrize("width", [64, 72, 80, 100, 120, 200])
def test_ids_and_statuses_are_whole_in_any_ordinary_window(
    width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines fit, and each row is one line; columns that are left out are named."""
    printed(width)

    shown, messages = capsys.readouterr()
    lines = shown.splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    assert lines[1].startswith(f"completed  {RUN}  ")
    for name in ("STARTED", "DURATION", "ERROR"):
        assert (name in lines[0]) != (name in messages)


def test_a_very_narrow_window_gets_a_line_a_cell(capsys: pytest.CaptureFixture[str]) -> None:
    """With everything, and nothing cut."""
    printed(40)

    shown, _ = capsys.readouterr()
    assert shown.split("\n\n")[0].splitlines() == [
        "STATUS    completed",
        f"RUN       {RUN}",
        "WORKFLOW  nightly-report",
        "STARTED   2026-11-21 08:11:26Z",
        "DURATION  3.6 ms",
    ]
    assert "x" * 50 in shown

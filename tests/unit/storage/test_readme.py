"""The tables of storage/README.md against the code."""

import re
from pathlib import Path

from runfold_storage.checkpoints.incidents import MEANINGS
from runfold_storage.tables import metadata

README = (Path(__file__).parents[3] / "storage" / "README.md").read_text()


def first_column(heading: str) -> list[str]:
    """Return the names in backticks that begin the rows of a section's first table."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_every_table_is_documented() -> None:
    """Each declared table has one row, and there are no others."""
    assert sorted(first_column("Tables")) == sorted(metadata.tables)


def test_every_incident_is_documented() -> None:
    """Each kind has one row, and there are no others."""
    assert sorted(first_column("Incidents")) == sorted(MEANINGS)

"""How far the fold has come, from the positions of the shards."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runfold_storage.checkpoints.positions import Position
from runfold_storage.checkpoints.streams import order
from runfold_storage.errors import BadParameter
from runfold_storage.postgres.connections import ReadConnection

from .summaries import Watermark

POSITION_COLUMNS: Final = """
    p.shard, p.position, p.folded_at,
    extract(epoch FROM clock_timestamp() - p.folded_at)::float8 AS age_s
"""
"""The columns of a watermark, as SQL over the positions `p`."""


def read_watermark(connection: ReadConnection) -> Watermark:
    """Return the position of each shard, and the age of the newest event folded on any shard."""
    rows = connection.execute(f"SELECT {POSITION_COLUMNS} FROM positions AS p ORDER BY p.shard")  # noqa: S608
    return watermark_of(rows.fetchall())


def watermark_of(rows: Sequence[Any]) -> Watermark:
    """Return the watermark for rows that have the columns of a watermark."""
    folded = [(row.folded_at, row.age_s) for row in rows if row.folded_at is not None]
    folded_at, age_s = max(folded, default=(None, None))
    return Watermark(
        position={str(row.shard): row.position for row in rows},
        folded_at=folded_at,
        age_s=None if age_s is None else round(max(age_s, 0.0), 3),
    )


def parse_positions(parameter: str, text: str) -> dict[int, str]:
    """Parse `5:1795226400000-3,6:…`, or the JSON object in the answer to a write."""
    try:
        if text.lstrip().startswith("{"):
            given = dict(json.loads(text))
        else:
            given = dict(part.split(":", 1) for part in text.split(",") if part)
        wanted = {int(shard): str(position) for shard, position in given.items()}
    except (ValueError, TypeError, RecursionError):
        wanted = {0: ""}
    if not all(_POSITION.fullmatch(position) for position in wanted.values()):
        raise BadParameter(parameter, "expected the position of a write, such as 5:1795226400000-3")
    return wanted


def missing_shards(wanted: Mapping[int, str], positions: Mapping[int, Position]) -> list[int]:
    """Return the shards that have not reached the wanted position."""
    return [
        shard
        for shard, position in wanted.items()
        if shard not in positions or order(positions[shard].position) < order(position)
    ]


def fold_behind(missing: list[int], waited_s: float) -> str:
    """Return the message for a caller whose wait has timed out."""
    shards = ", ".join(map(str, missing))
    return (
        f"the fold has not reached this position on shard {shards} within {waited_s:g} s: "
        "try again, and check /readyz that a worker is running"
    )


_POSITION: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")

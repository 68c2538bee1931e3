"""How many rows the planner expects: no count, but it costs the same however many there are."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection

from .statements import Statement

_ROWS: Final = "Plan Rows"


def estimate_rows(connection: Connection, query: Statement, parameters: Mapping[str, Any]) -> int:
    """From the statistics that ANALYZE made last."""
    text = f"EXPLAIN (FORMAT JSON) {query.text}"
    ((plans,),) = query._replace(text=text, row=tuple).run(connection, parameters)
    return int(plans[0]["Plan"][_ROWS])

"""How many rows the planner expects: no count, but it costs the same however many there are."""

from typing import Any, Final

from sqlalchemy import Connection, Executable, Select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ClauseElement

_ROWS: Final = "Plan Rows"


class _Explain(Executable, ClauseElement):
    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(_Explain, "postgresql")
def _compile(element: _Explain, compiler: Any, **options: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **options)}"


def estimate_rows(connection: Connection, statement: Select[Any]) -> int:
    """From the statistics that ANALYZE made last."""
    (plan,) = connection.execute(_Explain(statement)).scalar_one()
    return int(plan["Plan"][_ROWS])

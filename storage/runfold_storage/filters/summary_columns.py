"""The columns of a run's summary."""

from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, SmallInteger, Uuid, bindparam, cast, func
from sqlalchemy.dialects.postgresql import ARRAY

from runfold_storage.tables import runs

SUMMARY_COLUMNS: Final = [
    column
    for column in runs.c
    if column.name not in ("last_event_at", "change_seq", "payloads_expired_at")
    and (column.computed is None or column.name == "fingerprint")
]
"""What lists show, and all that they are filtered by."""


def runs_at() -> FromClause:
    """The runs at the places in the parameters `shards` and `keys`, lists of the same length."""

    def given(name: str, kind: Any) -> ColumnElement[Any]:
        return cast(bindparam(name, type_=ARRAY(kind)), ARRAY(kind))

    places = (
        func.unnest(given("shards", SmallInteger), given("keys", Uuid))
        .table_valued("shard", "run", name="places")
        .render_derived()
    )
    return runs.join(places, (runs.c.shard == places.c.shard) & (runs.c.run == places.c.run))

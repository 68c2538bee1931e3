"""How far the fold has come, and how many shards there are: both from `positions`."""

from sqlalchemy import Connection, func, select

from .positions import Position
from .summaries import Watermark
from .tables import positions

_POSITIONS = select(
    positions.c.shard,
    positions.c.position,
    positions.c.folded_at,
    func.extract("epoch", func.clock_timestamp() - positions.c.folded_at).label("age_s"),
).order_by(positions.c.shard)


def read_watermark(connection: Connection) -> Watermark:
    """The position of each shard, and the age of the newest folded event of all of them."""
    rows = connection.execute(_POSITIONS).all()
    folded = [(row.folded_at, float(row.age_s)) for row in rows if row.folded_at is not None]
    folded_at, age_s = max(folded, default=(None, None))
    return Watermark(
        position={str(row.shard): row.position for row in rows},
        folded_at=folded_at,
        age_s=None if age_s is None else round(max(age_s, 0.0), 3),
    )


def count_shards(connection: Connection) -> int:
    """The deployment's number of shards; 0 if its workers have never run."""
    return connection.execute(select(func.count()).select_from(positions)).scalar_one()


def read_positions(connection: Connection) -> dict[int, Position]:
    """The checkpoint of each shard."""
    columns = (getattr(positions.c, name) for name in ("shard", *Position._fields))
    rows = connection.execute(select(*columns).order_by(positions.c.shard))
    return {shard: Position(*checkpoint) for shard, *checkpoint in rows}

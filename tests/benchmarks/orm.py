"""What many a tool does instead: an ORM that commits each event, and the row of its run with it."""

import time
from datetime import datetime
from uuid import uuid4

from sqlalchemy import DateTime, ForeignKey, Text, create_engine, func
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.workload import envelopes
from runfold.protocol.codec import to_datetime


class _Base(DeclarativeBase):
    pass


class _Run(_Base):
    __tablename__ = "orm_runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    events: Mapped[int] = mapped_column(default=0)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class _Event(_Base):
    __tablename__ = "orm_events"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: str(uuid4()))
    run: Mapped[str] = mapped_column(ForeignKey(_Run.id), index=True)
    type: Mapped[str]
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    body: Mapped[str] = mapped_column(Text)


def measure_orm(database_url: str, events: int) -> float:
    """Events a second of SQLAlchemy sessions with one commit an event; one process, one session."""
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:", 1))
    try:
        _Base.metadata.create_all(engine)
        ready = [
            (envelope.run, envelope.type, to_datetime(envelope.at_us), envelope.body.decode())
            for _, envelope in envelopes(
                -(-events // 10), shards=1, begin_us=time.time_ns() // 1000
            )
        ][:events]
        with Session(engine) as session:
            began = time.perf_counter()
            for run_id, kind, at, body in ready:
                run = session.get(_Run, run_id)
                if run is None:
                    run = _Run(id=run_id, status="running", events=0, updated_at=at)
                    session.add(run)
                    session.flush()
                if kind == "completed":
                    run.status = kind
                run.events += 1
                run.updated_at = at
                session.add(_Event(run=run_id, type=kind, at=at, body=body))
                session.commit()
            return len(ready) / (time.perf_counter() - began)
    finally:
        _Base.metadata.drop_all(engine)
        engine.dispose()

"""The entry to recording: runs, nodes, single events and finished executions."""

import os
import time
import weakref
from collections.abc import Callable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Final, Self, Unpack

import msgspec
import redis
from msgspec import Raw

from runfold.delivery.emitter import CHILD_FLUSH_S, Emitter, Flushed
from runfold.errors import BrokenEvent
from runfold.protocol import streams
from runfold.protocol.events import EVENT_CLASSES, Cancelled, Completed, Event, Failed, Started
from runfold.protocol.ids import make_run_id
from runfold.protocol.time_limits import latest_us
from runfold.serialization.event_cleanup import PAYLOAD_FIELDS
from runfold.serialization.normalize import normalize_name, normalize_run_id
from runfold.serialization.payloads import encode_payload
from runfold.serialization.redaction import Redact, Redactor
from runfold.settings import SettingArguments, Settings, read_settings

from .decorators import Decorators
from .event_writer import EVENT_OVERHEAD, EventIdAllocator, EventIds, EventWriter, normalize_time
from .finished_execution import ExecutionFields, events_of
from .run import Heartbeats, Run, current_run
from .run_start import PlannedRunFields, make_started

DEFAULT_TIMEOUT_S: Final = 5.0

_now_ns: Final = time.time_ns
_EMIT_PLANS: Final = {
    cls: (
        attrgetter(PAYLOAD_FIELDS[cls][0]) if PAYLOAD_FIELDS[cls] else None,
        len(PAYLOAD_FIELDS[cls]) == 1,
        issubclass(cls, Completed | Failed | Cancelled),
    )
    for cls in EVENT_CLASSES
}


class Recorder(Decorators):
    """Records runs. Make one per process; use it from any thread, task or forked child.

    Missing arguments are taken from the environment (`RUNFOLD_…`), then from the defaults; an
    invalid value raises `SettingInvalid`.
    `redact(key, value)` returns what to record under a key that the built-in list does not mask;
    `connect` makes the Redis client, for Sentinel or for tests.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        redact: Redact | None = None,
        connect: Callable[[str], redis.Redis] = streams.connect,
        **arguments: Unpack[SettingArguments],
    ) -> None:
        _check_names(arguments, SettingArguments)
        settings = read_settings(os.environ, redis_url=redis_url, **arguments)
        self.settings: Final[Settings] = settings
        self._redactor = Redactor(settings.redact_keys, redact)
        self._heartbeats = Heartbeats(settings.heartbeat_s)
        self._emitter = Emitter(
            settings, self._redactor, lambda: connect(settings.redis_url), self._heartbeats.send_due
        )
        self._put = self._emitter.put
        self._event_ids = EventIdAllocator()
        self._unsaved: set[str] = set()
        weakref.finalize(self, self._emitter.stop_when_sent).atexit = False

    def run(
        self,
        workflow: str,
        *,
        id: str | None = None,  # noqa: A002, the contract's word
        queued_at: datetime | None = None,
        save: bool = True,
        **fields: Unpack[PlannedRunFields],
    ) -> Run:
        """Return a run, to be entered. Inside the block of another run it becomes its child."""
        _check_names(fields, PlannedRunFields)
        writer = self._make_writer(id, saved=save)
        if not save:
            return self._make_run(writer, Started(workflow=normalize_name(workflow)))
        enclosing = current_run()
        if fields.get("parent_run") is None and enclosing is not None and enclosing.saved:
            fields["parent_run"] = enclosing.id
        fields["project"] = fields.get("project") or self.settings.project
        started = make_started(self._redactor, workflow, fields, fields.get("nodes"))
        return self._make_run(writer, started, normalize_time(queued_at))

    def join(self, run: str) -> Run:
        """Return a handle of a run that was started elsewhere; its block does not end the run."""
        writer = self._make_writer(run, saved=run not in self._unsaved)
        return self._make_run(writer, None)

    def emit(self, event: Event) -> None:
        """Send an event of its run or, if it names none, of the current run.

        Missing `id` and `at` are filled in. Do not change the event afterwards. Raises
        `BrokenEvent` for an event without any run, and for what is not an event.
        """
        try:
            payload_of, is_alone, is_end = _EMIT_PLANS[type(event)]
        except KeyError:
            raise BrokenEvent(f"not an event of the contract: {type(event).__name__}") from None
        run = event.run
        if run is None:
            enclosing = current_run()
            if enclosing is None:
                raise BrokenEvent(f"{event.type}: no `run` is given, and there is no current run")
            run = enclosing.id
            if not enclosing.saved:
                return
        elif self._unsaved and run in self._unsaved:
            return
        size = EVENT_OVERHEAD
        if payload_of is not None:
            payload = payload_of(event)
            if is_alone and type(payload) is Raw:
                size += len(payload)
            else:
                event, size = self._encode_payloads(event)
        at = event.at
        at_us = None if at is None else normalize_time(at)
        if at_us is None:
            at_us = _now_ns() // 1000
        event_id = event.id
        if event_id is None:
            event_id = self._event_ids.take(run)
        if is_end:
            self._event_ids.forget(run)
        self._put((event, run, event_id, at_us, size, False))
        if is_end:
            self._flush_before_abrupt_end()

    def record(
        self,
        workflow: str,
        *,
        started_at: datetime,
        save: bool = True,
        **fields: Unpack[ExecutionFields],
    ) -> str:
        """Record an execution that is over, all of it or nothing; return the id of the run.

        Without `status`, an `error` or an exit code other than 0 makes it failed. With an `id` of
        your own, recording the same again changes nothing. Raises `BrokenEvent` for a time before
        the year 2000, or more than `max_future_s` ahead of now.
        """
        _check_names(fields, ExecutionFields)
        if not save:
            own_id = fields.get("id")
            return normalize_run_id(own_id) if own_id else make_run_id(normalize_time(started_at))
        fields["project"] = fields.get("project") or self.settings.project
        latest = latest_us(_now_ns() // 1000, self.settings.max_future_s)
        run, events = events_of(self._redactor, workflow, started_at, fields, latest)
        self._emitter.put_all(events)
        self._flush_before_abrupt_end()
        return run

    def payload(self, value: object) -> Raw:
        """Return an object as the JSON of a payload for `emit`, with secrets masked."""
        return encode_payload(value, self._redactor)

    def flush(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> Flushed:
        """Wait, for about `timeout_s` seconds at most, until everything that was recorded before is
        in Redis or, during an outage, in the spool; return where the events are."""
        return self._emitter.flush(timeout_s)

    def close(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> Flushed:
        """Flush, spool what cannot be sent, and stop; later events are dropped and counted."""
        return self._emitter.close(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _encode_payloads(self, event: Event) -> tuple[Event, int]:
        """Return the event with encoded payloads, and its size in bytes."""
        size = EVENT_OVERHEAD
        for name in PAYLOAD_FIELDS[type(event)]:
            payload = getattr(event, name)
            if type(payload) is not Raw:
                payload = encode_payload(payload, self._redactor)
                event = msgspec.structs.replace(event, **{name: payload})
            size += len(payload)
        return event, size

    def _make_writer(self, run: str | None, *, saved: bool) -> EventWriter:
        """Return a writer: as emitter 0 only if this process makes the run's id."""
        ids = EventIds() if run else EventIds(0)
        normalized = normalize_run_id(run) if run else make_run_id()
        return EventWriter(normalized, ids, self._emitter, self._redactor, saved=saved)

    def _make_run(
        self, writer: EventWriter, started: Started | None, queued_us: int | None = None
    ) -> Run:
        return Run(
            writer,
            started,
            queued_us,
            self._on_run_started,
            self._on_run_ended,
            self._flush_before_abrupt_end,
        )

    def _on_run_started(self, run: Run) -> None:
        if run.saved:
            self._heartbeats.add(run)
            self._event_ids.add(run.id, run.writer.ids)
        else:
            self._unsaved.add(run.id)

    def _on_run_ended(self, run: Run) -> None:
        self._heartbeats.remove(run)
        self._event_ids.forget(run.id)
        self._unsaved.discard(run.id)

    def _flush_before_abrupt_end(self, run: Run | None = None) -> None:
        """At the end of an outermost run, in a process that may end abruptly right after it: wait
        until all events are safe."""
        if not self._emitter.ends_abruptly:
            return
        enclosing = current_run()
        is_outermost = (
            enclosing is None
            or enclosing is run
            or enclosing.is_inherited
            or not enclosing.saved
            or enclosing.writer.emitter is not self._emitter
        )
        if is_outermost and (run is None or run.saved):
            self._emitter.flush_or_spool(CHILD_FLUSH_S)


def _check_names(given: Mapping[str, object], fields: type) -> None:
    """Raise `TypeError` for an argument that does not exist, as a call without `Unpack` would."""
    for name in given.keys() - fields.__annotations__.keys():
        raise TypeError(f"unexpected keyword argument {name!r}")

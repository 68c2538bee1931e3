"""What an event of a sender other than the SDK goes through before it is in a stream, or folded.

The same on every way in: the time that it gives is checked, and what stands under sensitive keys
is masked. The id of an event without one follows from what was sent, so it is the same however
the list of keys changes, and a retried request stays a duplicate.
"""

import time
from collections.abc import Iterable
from typing import Final

from runfold.protocol.codec import Envelope, decode_event
from runfold.protocol.time_limits import MAX_FUTURE_S, check_time, latest_us

from .json_redaction import mask_body
from .redaction import Redactor


class Intake:
    """Safe to be shared by threads; `redact_keys` go on top of the built-in ones."""

    def __init__(self, redact_keys: Iterable[str] = (), max_future_s: float = MAX_FUTURE_S) -> None:
        self.redactor: Final = Redactor(redact_keys)
        self._max_future_s = max_future_s

    def latest_us(self) -> int:
        """The last time that an event may give, as of now, in microseconds since the epoch."""
        return latest_us(time.time_ns() // 1000, self._max_future_s)

    def read(self, raw: bytes, latest_us: int) -> Envelope:
        """One JSON event; raises `BrokenEvent` with the reason."""
        return self.admit(decode_event(raw)[0], latest_us)

    def admit(self, envelope: Envelope, latest_us: int) -> Envelope:
        """An event that was read, without its secrets; raises `BrokenEvent` for its time."""
        check_time("at", envelope.at_us, latest_us)
        body = mask_body(envelope.body, self.redactor)
        return envelope if body is envelope.body else envelope._replace(body=body)

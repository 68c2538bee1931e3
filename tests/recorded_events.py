"""What a test's recorder has sent, decoded."""

from collections.abc import Callable

from runfold import Event
from runfold.protocol.codec import Envelope

Recorded = Callable[[], list[tuple[Envelope, Event]]]
"""Returns the events so far, in the order of (at, id)."""

"""A packed frame that is to be sent, in memory or in the spool."""

from typing import Protocol


class FrameStore(Protocol):
    """What a frame needs of the segment that holds it."""

    unreadable_records: int

    def read(self, frame: "PendingFrame") -> bytes:
        """Return the packed bytes of a frame, or raise `OSError`."""


class PendingFrame:
    """`size`: bytes that its events use of the buffer's bound, unless `spooled` is set;
    `own`: its events were recorded in this process; `settled`: they are in Redis or given up.

    For a frame in the spool, `packed` is empty; `segment`, `offset`, `length` and `check` (CRC-32)
    locate it.
    """

    __slots__ = (
        "check",
        "count",
        "length",
        "offset",
        "own",
        "packed",
        "segment",
        "settled",
        "shard",
        "shards",
        "size",
        "spooled",
    )

    def __init__(
        self, shard: int, shards: int, packed: bytes, count: int, size: int, *, own: bool = True
    ) -> None:
        self.shard = shard
        self.shards = shards
        self.packed = packed
        self.count = count
        self.size = size
        self.own = own
        self.settled = self.spooled = False
        self.segment: FrameStore | None = None
        self.offset = self.length = self.check = 0

    def set_location(self, segment: FrameStore, offset: int, length: int, check: int) -> None:
        """Record where the packed bytes are on disk, and drop them from memory."""
        self.segment, self.offset, self.length, self.check = segment, offset, length, check
        self.packed = b""

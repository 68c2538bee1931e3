"""One packed frame on its way, in memory or in the spool."""

from typing import Protocol


class FrameStore(Protocol):
    """The segment of the spool that holds a frame."""

    unreadable: int

    def read(self, parcel: "PendingFrame") -> bytes:
        """Return the bytes of a frame, or raise an `OSError`."""


class PendingFrame:
    """`size`: the bytes that its events take in the buffer, as long as `spooled` is not set;
    `own`: they were put in this process; `settled`: they are in Redis, or given up.

    Once it is in the spool, `frame` is empty and `segment`, `offset`, `length` and `check` tell
    where to find it.
    """

    __slots__ = (
        "check",
        "count",
        "frame",
        "length",
        "offset",
        "own",
        "segment",
        "settled",
        "shard",
        "shards",
        "size",
        "spooled",
    )

    def __init__(
        self, shard: int, shards: int, frame: bytes, count: int, size: int, *, own: bool = True
    ) -> None:
        self.shard = shard
        self.shards = shards
        self.frame = frame
        self.count = count
        self.size = size
        self.own = own
        self.settled = self.spooled = False
        self.segment: FrameStore | None = None
        self.offset = self.length = self.check = 0

    def lies_in(self, segment: FrameStore, offset: int, length: int, check: int) -> None:
        """From now on its frame is on disk."""
        self.segment, self.offset, self.length, self.check = segment, offset, length, check
        self.frame = b""

"""Encode the end of a page as an opaque cursor, and decode it.

A cursor carries a digest of its query, so that another query refuses it, and a checksum, so that
a damaged cursor is refused too. It is not a secret: a forged cursor can only skip pages of data
that its caller may read anyway.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from contextlib import suppress
from hashlib import blake2b
from typing import Final

from runfold_storage.errors import BadParameter

MAX_CHARS: Final = 4000

_DIGEST: Final = 6
_CHECKSUM: Final = 4
_PERSON: Final = b"runfold.cursor"


def encode_cursor(query_key: bytes, key: bytes, *, parameter: str = "cursor") -> str:
    """Return the cursor that continues after `key`, and comes back as this parameter."""
    content = _digest(query_key, _DIGEST) + key
    return urlsafe_b64encode(content + _checksum(content, parameter)).decode().rstrip("=")


def decode_cursor(query_key: bytes, cursor: str, *, parameter: str = "cursor") -> bytes:
    """Return the key of a cursor; raise `BadParameter` unless it belongs to this query."""
    raw = b""
    if len(cursor) <= MAX_CHARS and cursor.isascii():
        with suppress(NotBase64):
            raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    content, checksum = raw[:-_CHECKSUM], raw[-_CHECKSUM:]
    if len(content) < _DIGEST or checksum != _checksum(content, parameter):
        raise BadParameter(parameter, "not a cursor: use `next_cursor` exactly as it was given")
    if content[:_DIGEST] != _digest(query_key, _DIGEST):
        raise BadParameter(
            parameter,
            "belongs to another query: repeat the filters of that query, or omit the cursor",
        )
    return content[_DIGEST:]


def _checksum(content: bytes, parameter: str) -> bytes:
    return _digest(parameter.encode() + b"\0" + content, _CHECKSUM)


def _digest(content: bytes, size: int) -> bytes:
    return blake2b(content, digest_size=size, person=_PERSON).digest()

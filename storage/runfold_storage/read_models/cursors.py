"""Cursors: where a page ended, as text that a caller hands back and need not understand.

A cursor carries a digest of the question that it belongs to, so that it is refused for another
one, and a checksum, so that a damaged one is refused too. It is no secret: whoever forges one
can only skip pages of what they may read anyway.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from hashlib import blake2b
from typing import Final

from runfold_storage.errors import BadParameter

MAX_CHARS: Final = 4000

_DIGEST: Final = 6
_CHECKSUM: Final = 4
_PERSON: Final = b"runfold.cursor"


def encode_cursor(question: bytes, key: bytes, *, parameter: str = "cursor") -> str:
    """The cursor that continues after `key` in the answer to `question`.

    `parameter` is the name under which it will come back.
    """
    content = _digest(question, _DIGEST) + key
    return urlsafe_b64encode(content + _checksum(content, parameter)).decode().rstrip("=")


def decode_cursor(question: bytes, cursor: str, *, parameter: str = "cursor") -> bytes:
    """The key that a cursor stands for; raises `BadParameter` for any but this question's own."""
    raw = _decoded(cursor)
    content, checksum = raw[:-_CHECKSUM], raw[-_CHECKSUM:]
    if len(content) < _DIGEST or checksum != _checksum(content, parameter):
        raise BadParameter(parameter, "not a cursor: use `next_cursor` exactly as it was given")
    if content[:_DIGEST] != _digest(question, _DIGEST):
        raise BadParameter(
            parameter,
            "belongs to another query: repeat that one's filters, or leave the cursor out",
        )
    return content[_DIGEST:]


def _decoded(cursor: str) -> bytes:
    if len(cursor) > MAX_CHARS or not cursor.isascii():
        return b""
    try:
        return urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except NotBase64:
        return b""


def _checksum(content: bytes, parameter: str) -> bytes:
    return _digest(parameter.encode() + b"\0" + content, _CHECKSUM)


def _digest(content: bytes, size: int) -> bytes:
    return blake2b(content, digest_size=size, person=_PERSON).digest()

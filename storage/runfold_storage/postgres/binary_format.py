"""PostgreSQL's binary format of fields, for COPY and for records.

Both write a field's length (-1 for null) and then its value; a record has the type's oid before
that. Sources: PostgreSQL's manual, "COPY: Binary Format", and `array_recv` and `record_recv` for an
array of records, which is how rows become a parameter. A general encoder takes three times as long.
"""

import struct
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec

EPOCH_2000_US: Final = 946_684_800_000_000
"""PostgreSQL's timestamps count microseconds from 2000-01-01 UTC."""

_INT2: Final = 21
_INT4: Final = 23
_INT8: Final = 20
_BYTEA: Final = 17
_TEXT: Final = 25
_UUID: Final = 2950
_TIME: Final = 1184
_NUMERIC: Final = 1700
_JSONB: Final = 3802
_INT2_ARRAY: Final = 1005
_INT8_ARRAY: Final = 1016
_TEXT_ARRAY: Final = 1009
"""The object ids of built-in types, which never change (`pg_type.dat`)."""

_MOST_TEXTS: Final = 10_000
_LENGTH: Final = struct.Struct(">i")
_ELEMENT_INT2: Final = struct.Struct(">ih").pack
_ELEMENT_INT8: Final = struct.Struct(">iq").pack
_NULL: Final = struct.pack(">i", -1)
_RECORD: Final = struct.Struct(">ii").pack
"""A record's length, and how many fields it has."""
_ROW: Final = struct.Struct(">h").pack
_ONE_DIGIT: Final = struct.Struct(">hhHhh").pack
_TWO_DIGITS: Final = struct.Struct(">hhHhhh").pack
"""A numeric: the number of digits, the first digit's weight, sign, scale, and the digits."""
_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END: Final = b"\xff\xff"


class WireFormat:
    """The prefixes of fields; `int8` etc. precede a value of that type.

    Encoded texts are cached, as names and statuses repeat.
    """

    def __init__(self, *, typed: bool) -> None:
        self._typed = typed
        self.head, self.end = (b"", b"") if typed else (_COPY_HEAD, _COPY_END)
        """What precedes and follows the rows."""
        self.prefix = "8s" if typed else "4s"
        """The format of a field's prefix for `struct`."""
        self.text_oid = (_TEXT,) if typed else ()
        """What precedes the length of a text."""
        self.int2 = self._begin(_INT2, 2)
        self.int4 = self._begin(_INT4, 4)
        self.int8 = self._begin(_INT8, 8)
        self.uuid = self._begin(_UUID, 16)
        self.time = self._begin(_TIME, 8)
        self.no_int4 = self._begin(_INT4, -1)
        self.no_int8 = self._begin(_INT8, -1)
        self.no_time = self._begin(_TIME, -1)
        self.no_text = self._begin(_TEXT, -1)
        self.no_texts = self._begin(_TEXT_ARRAY, -1)
        self.no_jsonb = self._begin(_JSONB, -1)
        self._pack_int4 = struct.Struct(f">{self.prefix}i").pack
        self._pack_int8 = struct.Struct(f">{self.prefix}q").pack
        self._numeric1, self._numeric2 = self._begin(_NUMERIC, 10), self._begin(_NUMERIC, 12)
        self.texts = lru_cache(_MOST_TEXTS)(self._texts)
        """Encode texts or nulls, one field each."""
        self.numeric = lru_cache(_MOST_TEXTS)(self._numeric)
        """Encode an integer of any size as `numeric`."""

    def int4_or_null(self, value: int | None) -> bytes:
        """Encode an `int4`."""
        return self.no_int4 if value is None else self._pack_int4(self.int4, value)

    def int8_or_null(self, value: int | None) -> bytes:
        """Encode an `int8`."""
        return self.no_int8 if value is None else self._pack_int8(self.int8, value)

    def time_or_null(self, us: int | None) -> bytes:
        """Encode a time, given in microseconds since 1970 UTC."""
        if us is None:
            return self.no_time
        return self._pack_int8(self.time, us - EPOCH_2000_US)

    def text_array(self, values: Sequence[str]) -> bytes:
        """Encode an array of texts."""
        return self._sized(_TEXT_ARRAY, text_array(values))

    def int2_array(self, values: Collection[int]) -> bytes:
        """Encode an array of `int2`."""
        return self._sized(_INT2_ARRAY, int2_array(values))

    def int8_array(self, values: Collection[int]) -> bytes:
        """Encode an array of `int8`."""
        return self._sized(_INT8_ARRAY, int8_array(values))

    def jsonb(self, value: Mapping[str, str]) -> bytes:
        """Encode `jsonb`: the format's version, then the text."""
        return self._sized(_JSONB, b"\x01" + msgspec.json.encode(value))

    def rows(self, rows: Sequence[bytes], n_fields: int) -> bytes:
        """Join rows of `n_fields` fields: the whole input of COPY, or the elements of an array."""
        if not self._typed:
            return _ROW(n_fields).join((self.head, *rows)) + self.end
        return b"".join([part for row in rows for part in (_RECORD(len(row) + 4, n_fields), row)])

    def begin_row(self, size: int, n_fields: int) -> bytes:
        """Return what precedes the fields of a row, which take `size` bytes."""
        return _RECORD(size + 4, n_fields) if self._typed else _ROW(n_fields)

    def _begin(self, kind: int, length: int) -> bytes:
        return struct.pack(">ii", kind, length) if self._typed else struct.pack(">i", length)

    def _sized(self, kind: int, data: bytes) -> bytes:
        return self._begin(kind, len(data)) + data

    def _texts(self, *values: str | None) -> bytes:
        return b"".join(
            self.no_text if value is None else self._sized(_TEXT, value.encode())
            for value in values
        )

    def _numeric(self, value: int) -> bytes:
        """Encode digits to the base of 10,000, most significant first."""
        if 0 < value < 100_000_000:
            first, last = divmod(value, 10_000)
            if first:
                return self._numeric2 + _TWO_DIGITS(2, 1, 0, 0, first, last)
            return self._numeric1 + _ONE_DIGIT(1, 0, 0, 0, last)
        digits = []
        rest = abs(value)
        while rest:
            rest, digit = divmod(rest, 10_000)
            digits.append(digit)
        digits.reverse()
        sign = 0x4000 if value < 0 else 0
        head = (len(digits), len(digits) - 1, sign, 0)
        return self._sized(_NUMERIC, struct.pack(f">hhHh{len(digits)}h", *head, *digits))


def array_of(kind: int, n: int, elements: bytes) -> bytes:
    """Encode an array: dimensions, a flag, the type; length and lower bound; the elements.

    The flag says whether there are nulls; `array_recv` ignores it and uses the elements' lengths.
    """
    if not n:
        return struct.pack(">iii", 0, 0, kind)
    return struct.pack(">iiiii", 1, 0, kind, n, 1) + elements


def text_array(values: Collection[str]) -> bytes:
    """Return the value of an array of texts."""
    elements = b"".join([_sized(value.encode()) for value in values])
    return array_of(_TEXT, len(values), elements)


def int2_array(values: Collection[int]) -> bytes:
    """Return the value of an array of `int2`."""
    elements = b"".join([_ELEMENT_INT2(2, value) for value in values])
    return array_of(_INT2, len(values), elements)


def int8_array(values: Collection[int | None]) -> bytes:
    """Return the value of an array of `int8` or nulls."""
    elements = b"".join([_NULL if value is None else _ELEMENT_INT8(8, value) for value in values])
    return array_of(_INT8, len(values), elements)


def bytea_array(values: Collection[bytes]) -> bytes:
    """Return the value of an array of `bytea`."""
    return array_of(_BYTEA, len(values), b"".join(map(_sized, values)))


def _sized(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


COPIED: Final = WireFormat(typed=False)
"""The format of COPY."""
RECORDS: Final = WireFormat(typed=True)
"""The format of records in an array."""

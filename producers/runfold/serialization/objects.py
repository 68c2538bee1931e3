"""Convert any Python object to plain JSON types, which msgspec can always encode.

An object is read only as far as an event has room. Foreign code (`model_dump`, `__repr__`, a
property) may raise without consequences.
"""

import base64
import dataclasses
import datetime
import decimal
import enum
import pathlib
import uuid
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Final

import msgspec
from msgspec import Raw

from runfold.protocol.events import MAX_EVENT_BYTES
from runfold.protocol.truncation import cut_text, mark_items, mark_keys

from .normalize import cut, normalize_text
from .redaction import REDACTED, Redactor

MAX_PAYLOAD_DEPTH: Final = 100
"""Less than the contract's limit, as a payload may be on the third level of an event."""

_MAX_ELEMENTS: Final = MAX_EVENT_BYTES // 2
_MAX_CHARACTERS: Final = 2 * MAX_EVENT_BYTES
_LEAST_TEXT: Final = 64
_SMALL: Final = 2**63
_MAX_REPR: Final = 2_000
_MAX_ARRAY: Final = 10_000
_AS_TEXT: Final = (pathlib.PurePath, uuid.UUID, decimal.Decimal, datetime.timedelta)
_AS_ISO: Final = (datetime.datetime, datetime.date, datetime.time)
_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder()


class ObjectSerializer:
    """Converts one object. Two budgets bound it: `_elements`, after which containers are cut, and
    `_characters`, after which all further texts are very short."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._elements = _MAX_ELEMENTS
        self._characters = _MAX_CHARACTERS
        self._ancestors: set[int] = set()

    def read(self, value: Any, depth: int = 0) -> Any:
        """Return plain JSON types. Callers use an instance for one object only."""
        kind = type(value)
        self._elements -= 1
        if kind is str:
            if len(value) > self._characters or not value.isascii():
                return self._read_text(value)
            self._characters -= len(value)
            return value
        if value is None or kind is bool:
            return value
        if kind is int:
            return value if -_SMALL < value < _SMALL else self._read_int(value)
        if kind is float:
            return self._read_float(value)
        if depth >= MAX_PAYLOAD_DEPTH:
            return f"[nested too deeply: {kind.__name__}]"
        if id(value) in self._ancestors:
            return f"[circular: {kind.__name__}]"
        self._ancestors.add(id(value))
        try:
            return self._read_object(value, depth + 1)
        except Exception as error:  # foreign code may raise anything
            return not_recorded(value, error)
        finally:
            self._ancestors.discard(id(value))

    def _read_object(self, value: Any, depth: int) -> Any:
        """Convert by type: common types first, and subclasses before their bases."""
        if type(value) is dict or isinstance(value, Mapping):
            return self._read_mapping(value.items(), len(value), depth)
        if isinstance(value, list | tuple):
            if hasattr(value, "_asdict"):
                return self.read(value._asdict(), depth)
            return self._read_items(value, len(value), depth)
        if isinstance(value, enum.Enum):
            return self.read(value.value, depth)
        if isinstance(value, str):
            return self._read_text(str.__str__(value))
        if isinstance(value, int):
            return self._read_int(int(value))
        if isinstance(value, float):
            return self._read_float(float(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return self._read_bytes(value)
        if isinstance(value, _AS_ISO):
            return value.isoformat()
        if isinstance(value, _AS_TEXT):
            return self._read_text(str(value))
        if isinstance(value, Raw):
            return self.read(_decoder.decode(value), depth)
        if isinstance(value, type):
            return self._read_text(repr(value))
        return self._read_structure(value, depth)

    def _read_structure(self, value: Any, depth: int) -> Any:
        if isinstance(value, msgspec.Struct):
            return self._read_fields(value, value.__struct_fields__, depth)
        if dataclasses.is_dataclass(value):
            return self._read_fields(value, [f.name for f in dataclasses.fields(value)], depth)
        if callable(getattr(value, "model_dump", None)):
            return self.read(value.model_dump(), depth)
        if hasattr(value, "__attrs_attrs__"):
            return self._read_fields(value, [f.name for f in value.__attrs_attrs__], depth)
        if isinstance(value, Set):
            try:
                return self._read_items(sorted(value), len(value), depth)
            except TypeError:
                return self._read_items(value, len(value), depth)
        if isinstance(value, Sequence):
            return self._read_items(value, len(value), depth)
        if callable(getattr(value, "tolist", None)) and getattr(value, "size", 0) <= _MAX_ARRAY:
            return self.read(value.tolist(), depth)
        return self._read_text(cut(self._redactor.scrub(repr(value)[: 2 * _MAX_REPR]), _MAX_REPR))

    def _read_fields(self, value: Any, names: Iterable[str], depth: int) -> Any:
        pairs = [(name, getattr(value, name)) for name in names if hasattr(value, name)]
        return self._read_mapping(pairs, len(pairs), depth)

    def _read_mapping(self, pairs: Iterable[tuple[Any, Any]], length: int, depth: int) -> Any:
        items: dict[str, Any] = {}
        unmasked_keys = self._redactor.unmasked_keys
        for key, value in pairs:
            if self._elements <= 0:
                break
            if type(key) is str and key in unmasked_keys and key not in items:
                self._characters -= len(key)
                items[key] = self.read(value, depth)
                continue
            name = self._read_text(key) if type(key) is str else self._read_key(key)
            if name in items:
                name = f"{name} ({type(key).__name__})"
            recorded = self._redactor.apply(name, value)
            items[name] = REDACTED if recorded is REDACTED else self.read(recorded, depth)
        return mark_keys(items, length)

    def _read_items(self, values: Iterable[Any], length: int, depth: int) -> list[Any]:
        items: list[Any] = []
        if length == 2 and isinstance(values, tuple) and isinstance(values[0], str | bytes):
            name = self._read_key(values[0])  # possibly one header of a request
            if self._redactor.masks(name, values[1]):
                return [name, REDACTED]
        for value in values:
            if self._elements <= 0:
                break
            items.append(self.read(value, depth))
        return mark_items(items, length)

    def _read_key(self, key: Any) -> str:
        text = self.read(key, MAX_PAYLOAD_DEPTH - 2)
        if isinstance(text, str):
            return text
        return self._read_text(_encoder.encode(text).decode())

    def _read_text(self, text: str) -> str:
        text = normalize_text(cut_text(text, self._text_room))
        self._characters -= len(text)
        return text

    @property
    def _text_room(self) -> int:
        return max(min(self._characters, MAX_EVENT_BYTES), _LEAST_TEXT)

    def _read_bytes(self, value: bytes | bytearray | memoryview) -> str:
        start = bytes(value[: self._text_room])
        try:
            text = start.decode()
        except UnicodeDecodeError:
            text = "base64:" + base64.b64encode(start).decode()
        mark = f"…[cut, {len(value)} bytes]" if len(start) < len(value) else ""
        return self._read_text(text) + mark

    @staticmethod
    def _read_int(value: int) -> int | str:
        """Return a number of 64 bits, or text, as many readers hold no larger numbers."""
        if -(2**63) <= value < 2**64:
            return value
        bits = value.bit_length()
        return str(value) if bits <= 4096 else f"[a whole number of {bits} bits]"

    @staticmethod
    def _read_float(value: float) -> float | str:
        if value - value == 0:
            return value
        return "NaN" if value != value else ("Infinity" if value > 0 else "-Infinity")


def not_recorded(value: object, error: Exception) -> str:
    """Return the text that replaces an object that cannot be read."""
    return f"[not recorded: {type(value).__name__}: {type(error).__name__}]"

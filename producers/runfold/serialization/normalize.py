"""Convert any value to a name, id, number or tag that the contract allows.

Nothing here raises. Changes are visible in the result, and different run ids stay different.
"""

from hashlib import blake2b
from typing import Any, Final, TypeVar

from runfold.protocol.events import MAX_NAME

_MAX_TAG_VALUE: Final = 1000
Number = TypeVar("Number", int, float)


def normalize_text(value: object) -> str:
    """Return any object as text that is valid UTF-8."""
    text = value if type(value) is str else _to_text(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _to_text(value: object) -> str:
    try:
        return str.__str__(value) if isinstance(value, str) else str(value)
    except Exception as error:
        return f"[{type(value).__name__}: {type(error).__name__}]"


def cut(text: str, most: int) -> str:
    """Return at most `most` characters; the last one is `…` if some are missing."""
    return text if len(text) <= most else text[: most - 1] + "…"


def normalize_name(value: object) -> str | None:
    """Return a name of 1 to 200 characters; None for None and empty text."""
    if value is None:
        return None
    return cut(normalize_text(value), MAX_NAME) or None


def normalize_names(values: object) -> list[str] | None:
    """Return a list of names from an iterable or a single value."""
    if values is None:
        return None
    if isinstance(values, str):
        values = (values,)
    try:
        names = [normalize_name(value) for value in values]  # type: ignore[attr-defined]  # see except
    except Exception:  # not iterable: a single name
        names = [normalize_name(values)]
    return [name for name in names if name is not None]


def is_run_id(run_id: str) -> bool:
    """Return whether the contract allows this id as it is."""
    if not 0 < len(run_id) <= MAX_NAME or "\0" in run_id:
        return False
    return run_id.isascii() or ("\ufffd" not in run_id and normalize_text(run_id) == run_id)


def normalize_run_id(run_id: object) -> str:
    """Return the caller's id or, if it is not allowed, its beginning and a hash of the whole."""
    text = run_id if type(run_id) is str else _to_text(run_id)
    if is_run_id(text):
        return text
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    head = normalize_text(text[:160]).replace("\0", "?").replace("\ufffd", "?")
    return f"{head}~{digest}"


def normalize_count(value: object, least: int, most: int) -> int | None:
    """Return a whole number, clamped to the bounds; None for what is not a number."""
    number = normalize_number(value, least, most)
    return None if number is None else int(number)


def normalize_number(value: object, least: float, most: float) -> float | None:
    """Return a number, clamped to the bounds; None for NaN and what is not a number."""
    try:
        number = value if type(value) is int else float(value)  # type: ignore[arg-type]  # see except
    except Exception:  # not a number; foreign code may raise anything
        return None
    return None if number != number else min(max(number, least), most)


def normalize_tag(value: Any) -> str | int | float | bool | None:
    """Return a value that a tag may have; others become text."""
    if value is None or type(value) is bool:
        return value
    if type(value) is int and value.bit_length() < 64:
        return value
    if type(value) is float and abs(value) < float("inf"):
        return value
    return cut(normalize_text(value), _MAX_TAG_VALUE)

"""Whatever a runner gives as a name, made into one that the contract allows.

Nothing here raises: a strange name must not break a runner. What is changed is visibly changed,
and two different run ids never become the same one.
"""

from hashlib import blake2b
from typing import Any, Final, TypeVar

from runfold.protocol.events import MAX_NAME

_MAX_TAG_VALUE: Final = 1000
Number = TypeVar("Number", int, float)


def normalize_text(value: object) -> str:
    """Any object as text that is valid UTF-8."""
    text = value if type(value) is str else _say(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _say(value: object) -> str:
    try:
        return str.__str__(value) if isinstance(value, str) else str(value)
    except Exception as error:
        return f"[{type(value).__name__}: {type(error).__name__}]"


def cut(text: str, most: int) -> str:
    """At most this many characters, the last one `…` where some are missing."""
    return text if len(text) <= most else text[: most - 1] + "…"


def normalize_name(value: object) -> str | None:
    """A name of 1 to 200 characters; `None` for nothing."""
    if value is None:
        return None
    return cut(normalize_text(value), MAX_NAME) or None


def normalize_names(values: object) -> list[str] | None:
    """Several names, or one."""
    if values is None:
        return None
    if isinstance(values, str):
        values = (values,)
    try:
        names = [normalize_name(value) for value in values]  # type: ignore[attr-defined]  # see except
    except Exception:  # not several, whatever it is
        names = [normalize_name(values)]
    return [name for name in names if name is not None]


def is_run_id(run_id: str) -> bool:
    """Whether the contract allows this id as it is."""
    if not 0 < len(run_id) <= MAX_NAME or "\0" in run_id:
        return False
    return run_id.isascii() or ("\ufffd" not in run_id and normalize_text(run_id) == run_id)


def normalize_run_id(run_id: object) -> str:
    """The caller's id, or, where it is not allowed, its beginning and a hash of the whole."""
    text = run_id if type(run_id) is str else _say(run_id)
    if is_run_id(text):
        return text
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    head = normalize_text(text[:160]).replace("\0", "?").replace("\ufffd", "?")
    return f"{head}~{digest}"


def normalize_count(value: object, least: int, most: int) -> int | None:
    """A whole number within bounds; `None` for what is none."""
    number = normalize_number(value, least, most)
    return None if number is None else int(number)


def normalize_number(value: object, least: float, most: float) -> float | None:
    """A number within bounds; `None` for what is none, NaN too."""
    try:
        number = value if type(value) is int else float(value)  # type: ignore[arg-type]  # see except
    except Exception:  # someone else's object, and no number
        return None
    return None if number != number else min(max(number, least), most)


def normalize_tag(value: Any) -> str | int | float | bool | None:
    """The value of a tag."""
    if value is None or type(value) is bool:
        return value
    if type(value) is int and value.bit_length() < 64:
        return value
    if type(value) is float and abs(value) < float("inf"):
        return value
    return cut(normalize_text(value), _MAX_TAG_VALUE)

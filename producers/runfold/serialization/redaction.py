"""Redaction: a value is masked if its key is sensitive.

The SDK applies it to objects (`objects`), every other way in to events (`intake`).

A key is split into words (`X-Api-Key`, `dbPassword`, `AWS_SECRET_ACCESS_KEY`). It is sensitive if
one word, or several neighbouring ones, end in a listed key or its plural. Counts of tokens are not
secret: `input_tokens` and `token_count: 5` stay.
"""

import logging
import re
from collections.abc import Callable, Iterable
from typing import Final

REDACTED: Final = "[redacted]"

DEFAULT_KEYS: Final = (
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    *(f"{kind} tokens" for kind in ("access", "api", "auth", "bearer", "refresh", "session")),
    "authorization",
    "auth",
    "bearer",
    "jwt",
    "api key",
    "access key",
    "private key",
    "secret key",
    "signing key",
    "encryption key",
    "credential",
    "cookie",
    "connection string",
    "cvv",
)

Redact = Callable[[str, object], object]
"""Takes a key and its value; returns what to record, which may be the value itself."""

_COUNTING: Final = re.compile(
    "budget|count|cost|length|limit|max|min|num|number|per|price|rate|remaining|size|total|usage|used"
)
_HUMPS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BETWEEN_WORDS: Final = re.compile(r"[\W_]+|\d+")
_ASSIGNED: Final = re.compile(
    r"""(?P<head>["']?(?P<key>\w[\w.-]*)["']?\s*[=:]\s*)
        (?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,;(){}\[\]<>"']+)""",
    re.VERBOSE,
)
_MAX_KNOWN: Final = 10_000

_log = logging.getLogger("runfold")


class Redactor:
    """Decides by key. `keys` are added to the built-in ones; `-key` removes one, `-*` all.

    `unmasked_keys` caches keys that are known not to be sensitive, for comparison as a set.
    """

    def __init__(self, keys: Iterable[str] = (), redact: Redact | None = None) -> None:
        words = {_join(key) for key in DEFAULT_KEYS}
        for key in keys:
            if key == "-*":
                words.clear()
            elif key.startswith("-"):
                words.discard(_join(key))
            else:
                words.add(_join(key))
        words.discard("")
        self._endings = tuple(words | {word + "s" for word in words if word != "token"})
        self._redact = redact
        self._known: dict[str, str] = {}
        self.unmasked_keys: set[str] = set()
        self._warned = False

    @property
    def has_callable(self) -> bool:
        """Whether a callable decides about each value."""
        return self._redact is not None

    def masks(self, key: str, value: object) -> bool:
        """Return whether the built-in rule masks this value."""
        verdict = self._known.get(key)
        if verdict is None:
            verdict = self._classify(key)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
                self.unmasked_keys.clear()
            if len(key) <= 100 and key.isascii():
                self._known[key] = verdict
                if not verdict and self._redact is None:
                    self.unmasked_keys.add(key)
        if not verdict or value is None or type(value) is bool:
            return False
        return verdict == "secret" or isinstance(value, str | bytes)

    def apply(self, key: str, value: object) -> object:
        """Return what to record under this key."""
        if self.masks(key, value):
            return REDACTED
        return value if self._redact is None else self._call(key, value)

    def apply_to_text(self, key: str, text: str) -> str:
        """Pass a text (`message`, `stack`, `text`, `reason`) to the callable, if there is one."""
        if self._redact is None:
            return text
        answer = self._call(key, text)
        return answer if isinstance(answer, str) else REDACTED

    def scrub(self, text: str) -> str:
        """Mask values in a `repr`, as in `password='…'` or `'token': …`."""
        return _ASSIGNED.sub(self._mask, text)

    def _mask(self, found: re.Match[str]) -> str:
        value = 0 if found["value"].isdecimal() else found["value"]
        return found["head"] + REDACTED if self.masks(found["key"], value) else found[0]

    def _call(self, key: str, value: object) -> object:
        assert self._redact is not None
        try:
            return self._redact(key, value)
        except Exception as error:
            if not self._warned:
                self._warned = True  # its message and traceback may hold the value
                name = type(error).__name__
                _log.error("the redact callable raised %s: those values are masked", name)
            return REDACTED

    def _classify(self, key: str) -> str:
        words = _split(key)
        counts = any(map(_COUNTING.fullmatch, words))
        joined = verdict = ""
        for word in words:
            joined += word
            if joined.endswith(self._endings):
                if not (counts and joined.endswith("token")):
                    return "secret"
                verdict = "unless a count"
        return verdict


def _split(key: str) -> list[str]:
    return [word.casefold() for word in _BETWEEN_WORDS.split(_HUMPS.sub(" ", key)) if word]


def _join(key: str) -> str:
    return "".join(_split(key))

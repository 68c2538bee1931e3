"""Mask the secrets in a command line before it is recorded.

Masked are the values of options and variables with a sensitive name (`--password=…`, `--token …`,
`API_KEY=…`, also inside shell scripts), the values of such headers, and passwords in URLs.
"""

import re
from collections.abc import Sequence
from typing import Final

from runfold.serialization.redaction import REDACTED, Redactor

_OPTION: Final = re.compile(
    r"(?P<head>(?P<dashes>--?)?(?P<key>[A-Za-z_][\w.-]*)=)(?P<value>.+)", re.S
)
_FLAG: Final = re.compile(r"--?(?P<key>[A-Za-z][\w-]*)")
_HEADER: Final = re.compile(r"(?P<head>(?P<key>[A-Za-z][\w-]*):\s*)(?P<value>\S.*)", re.S)
_URL_PASSWORD: Final = re.compile(r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)")


def redact_command_line(words: Sequence[str], redactor: Redactor) -> list[str]:
    """Return the same number of words, with secrets masked."""
    shown: list[str] = []
    is_secret = False
    for word in words:
        if is_secret and not word.startswith("-"):
            shown.append(REDACTED)
            is_secret = False
            continue
        shown.append(_redact_word(word, redactor))
        flag = _FLAG.fullmatch(word)
        is_secret = flag is not None and redactor.masks(flag["key"], "text")
    return shown


def _redact_word(word: str, redactor: Redactor) -> str:
    for pattern in (_OPTION, _HEADER):
        found = pattern.fullmatch(word)
        if found is not None and redactor.masks(found["key"], found["value"]):
            return found["head"] + REDACTED
    return redactor.scrub(_URL_PASSWORD.sub(rf"\g<head>{REDACTED}", word))

"""Search texts: the texts of a run as the index contains them, and patterns to search for.

Both sides are lower case, by PostgreSQL's `lower`.
"""

import re
from typing import Final

MAX_PAYLOAD: Final = 4096
"""Characters of a run's inputs and outputs that are indexed."""

RUN_TEXT: Final = """
    lower(concat_ws(E'\\x1f', r.workflow, r.external_id, r.run::text, r.tags::text,
                    (SELECT string_agg(t.key || ':' || t.value, E'\\x1f' ORDER BY t.key)
                     FROM jsonb_each_text(r.tags) AS t),
                    r.error_type, r.error_message))
"""
"""SQL over a row `r` of `runs`: the texts that `q` searches, and the tags as `key:value`.

It must contain all that `run_filter` compares, or lists would miss runs; more is harmless.
"""


def pattern_of(text: str) -> str:
    """Return a LIKE pattern for a text, its special characters escaped."""
    for special in "\\%_":
        text = text.replace(special, "\\" + special)
    return f"%{text}%"


def selective_part(text: str) -> str:
    """Return an equally selective part of a text; UUIDs of the same month begin alike."""
    return text[-12:] if _UUID.fullmatch(text) else text


_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def has_trigram(text: str) -> bool:
    """Return whether a trigram index can answer: trigrams consist of letters and digits."""
    length = 0
    for character in text:
        length = length + 1 if character.isalnum() else 0
        if length == 3:
            return True
    return False

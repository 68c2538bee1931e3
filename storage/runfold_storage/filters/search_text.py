"""What is searched: the texts of a run as the index has them, and texts to look for as patterns.

Everything is lower case, as PostgreSQL makes it, on both sides.
"""

import re
from typing import Any, Final

from sqlalchemy import ColumnElement, exists, func

from runfold_storage.tables import search_payloads, search_projects

MAX_PAYLOAD: Final = 4096
"""Characters of a run's inputs and outputs that are searched."""

RUN_TEXT: Final = """
    lower(concat_ws(E'\\x1f', r.workflow, r.external_id, r.run::text, r.tags::text,
                    (SELECT string_agg(t.key || ':' || t.value, E'\\x1f' ORDER BY t.key)
                     FROM jsonb_each_text(r.tags) AS t),
                    r.error_type, r.error_message))
"""
"""SQL over a row `r` of `runs`: all that `q` is looked for in, with the tags as one writes them.

Never less than `filters` looks at, or runs would be missed; more costs a look at the run only.
"""


def pattern_of(text: str) -> str:
    """For LIKE, which takes a backslash for what is meant literally."""
    for special in "\\%_":
        text = text.replace(special, "\\" + special)
    return f"%{text}%"


def selective_part(text: str) -> str:
    """A part that says as much, with fewer trigrams to look up.

    Ids of the same month begin alike: the end of a UUID alone tells which one it is.
    """
    return text[-12:] if _UUID.fullmatch(text) else text


_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def has_trigram(text: str) -> bool:
    """Whether an index of trigrams can tell anything: they are of letters and digits."""
    length = 0
    for character in text:
        length = length + 1 if character.isalnum() else 0
        if length == 3:
            return True
    return False


def payload_condition(of: Any, pattern: ColumnElement[str]) -> ColumnElement[bool]:
    """A text in the inputs or outputs of a row of `runs`, or of what has its columns."""
    texts = search_payloads.c
    return (
        exists()
        .where(
            texts.shard == of.shard,
            texts.run == of.run,
            texts.text.like(func.lower(pattern)),
            search_projects.c.project == texts.project,
            search_projects.c.enabled,
        )
        .correlate_except(search_payloads, search_projects)
    )

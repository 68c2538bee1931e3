"""Logging of long-running commands: to stderr, one line per record, constant text plus fields."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class LineFormatter(logging.Formatter):
    """Formats `time level logger: text key=value …`; a traceback is a field, too."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        shown = "".join(f" {key}={_shown(value)}" for key, value in fields.items())
        text = record.getMessage().replace("\n", " ")
        level = record.levelname.lower()
        return f"{at.removesuffix('+00:00')}Z {level:<7} {record.name}: {text}{shown}"


def configure_logging(level: str) -> None:
    """Configure the root logger; a command calls this once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Their messages about every request or migration step are too frequent.
    for name in ("alembic", "uvicorn"):
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


def _shown(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and text and not any(character in ' "=' for character in text)
    return text if plain else json.dumps(text, ensure_ascii=False)

"""What is wrong with a file that was to be imported."""

from pathlib import Path
from typing import NoReturn

from runfold_stack.errors import StackError


class WfFormatError(StackError):
    """A file that cannot be imported; the message says where, why and what to do."""


def refuse(path: Path, place: str, what: str) -> NoReturn:
    """Raise `WfFormatError` for one place in the file."""
    raise WfFormatError(f"{path}: {place} {what}")

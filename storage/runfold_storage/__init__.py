"""The ledger, the projections and the reads; `History` is what most readers need."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .history import History

__all__ = ["History"]


def __getattr__(name: str) -> Any:
    # SQLAlchemy takes a fifth of a second to import; a command that reads nothing should not wait.
    if name == "History":
        from .history import History

        return History
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

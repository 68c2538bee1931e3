"""Validation of query parameters before a route runs: none is unknown, and each has its type.

A filter that is silently ignored gives a wrong answer that looks right. What a type cannot say is
checked by `runfold_storage.filters.validation` and `runfold_storage.parameters`.
"""

import math
import re
from collections import Counter
from typing import Any, Final

from litestar import Request
from litestar.params import QueryParameter
from litestar.typing import FieldDefinition

from runfold_storage.parameters import shown

from .problems import RequestRefused

# Stricter than `int` and `float`, which also read 1_000 and nan.
_NUMBERS: Final = (
    (int, re.compile(r"-?[0-9]{1,18}"), "a whole number"),
    (float, re.compile(r"-?[0-9]{1,18}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?"), "a number"),
)
_BOOLEANS: Final = frozenset(("true", "false", "1", "0"))


def check_query(request: Request[Any, Any, Any]) -> None:
    """Raise `RequestRefused` for the first query parameter that this route cannot take."""
    known = known_parameters(request.route_handler)
    given = Counter(name for name, _ in request.query_params.multi_items())
    for name, times in given.items():
        field = known.get(name)
        if field is None:
            allowed = sorted(known)
            detail = f"{name[:100]}: unknown parameter; known are {', '.join(allowed) or 'none'}"
            raise RequestRefused(
                400, "unknown-parameter", detail, parameter=name[:100], allowed=allowed
            )
        if times > 1 and not field.is_non_string_sequence:
            raise _bad_parameter(name, f"expected one value, got {times}")
        _check_value(name, field, request.query_params[name])
    for name, field in known.items():
        if field.is_required and name not in given:
            raise _bad_parameter(name, f"is required. {_definition(field).description}")


def known_parameters(handler: Any) -> dict[str, FieldDefinition]:
    """Return a route's query parameters: its own and those of its dependencies."""
    dependencies = handler.resolve_dependencies()
    signatures = [handler.parsed_fn_signature]
    signatures += [
        dependencies[name].parsed_fn_signature
        for name in handler.parsed_fn_signature.parameters
        if name in dependencies
    ]
    return {
        name: field
        for signature in signatures
        for name, field in signature.parameters.items()
        if isinstance(field.kwarg_definition, QueryParameter)
    }


def _check_value(name: str, field: FieldDefinition, text: str) -> None:
    if field.annotation in (bool, bool | None) and text.lower() not in _BOOLEANS:
        raise _bad_parameter(name, f"expected true or false, got {shown(text)}")
    for kind, pattern, noun in _NUMBERS:
        if field.annotation in (kind, kind | None):
            least, most = _definition(field).ge, _definition(field).le
            value = kind(text) if pattern.fullmatch(text) else math.nan
            if not (-math.inf if least is None else least) <= value <= (most or math.inf):
                bounds = "" if least is None else f" of at least {least:,}"
                if most is not None:
                    bounds = f" from {least:,} to {most:,}"
                raise _bad_parameter(name, f"expected {noun}{bounds}, got {shown(text)}")


def _definition(field: FieldDefinition) -> QueryParameter:
    assert isinstance(field.kwarg_definition, QueryParameter)
    return field.kwarg_definition


def _bad_parameter(name: str, reason: str) -> RequestRefused:
    return RequestRefused(400, "bad-parameter", f"{name}: {reason}", parameter=name)

"""Decorators that record each call of a function as a run, or as a node of the current run."""

import functools
import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, Unpack, cast, overload

from .handle import Handle
from .run import Run, current_run
from .run_start import PlannedRunFields

F = TypeVar("F", bound=Callable[..., Any])

Arguments = dict[str, Any]
Open = Callable[[Arguments | None], Handle | None]
"""Returns the handle for one call from its arguments; None if the call is not recorded."""

_log = logging.getLogger("runfold")


class Decorators(ABC):
    """The recorder's decorators; both work with and without arguments."""

    @abstractmethod
    def run(self, workflow: str, *, save: bool = True, **fields: Unpack[PlannedRunFields]) -> Run:
        """Return a run, to be entered."""

    @overload
    def workflow(self, function: F, /) -> F: ...

    @overload
    def workflow(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        save: bool = True,
        capture_inputs: bool = True,
        capture_outputs: bool = True,
        **fields: Unpack[PlannedRunFields],
    ) -> Callable[[F], F]: ...

    def workflow(
        self,
        function: F | None = None,
        /,
        *,
        name: str | None = None,
        save: bool = True,
        capture_inputs: bool = True,
        capture_outputs: bool = True,
        **fields: Unpack[PlannedRunFields],
    ) -> F | Callable[[F], F]:
        """Record each call as a run, with its arguments as inputs and its result as outputs."""

        def decorate(function: F) -> F:
            workflow = name or name_of(function)

            def open_run(arguments: Arguments | None) -> Handle:
                return self.run(
                    workflow, save=save, **(PlannedRunFields(inputs=arguments) | fields)
                )

            return wrap(function, open_run, inputs=capture_inputs, outputs=capture_outputs)

        return decorate if function is None else decorate(function)

    @overload
    def node(self, function: F, /) -> F: ...

    @overload
    def node(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        node_type: str | None = None,
        parents: Sequence[str] | None = None,
        capture_inputs: bool = True,
        capture_outputs: bool = True,
    ) -> Callable[[F], F]: ...

    def node(
        self,
        function: F | None = None,
        /,
        *,
        name: str | None = None,
        node_type: str | None = None,
        parents: Sequence[str] | None = None,
        capture_inputs: bool = True,
        capture_outputs: bool = True,
    ) -> F | Callable[[F], F]:
        """Record each call as a node of the current run, and a repeated call as an attempt."""

        def decorate(function: F) -> F:
            node = name or name_of(function)
            warned = False

            def open_node(arguments: Arguments | None) -> Handle | None:
                nonlocal warned
                run = current_run()
                if run is None:
                    if not warned:
                        warned = True
                        _log.warning("node %s was called outside of a run: not recorded", node)
                    return None
                return run.node(node, node_type=node_type, parents=parents, inputs=arguments)

            return wrap(function, open_node, inputs=capture_inputs, outputs=capture_outputs)

        return decorate if function is None else decorate(function)


def wrap(function: F, open_handle: Open, *, inputs: bool, outputs: bool) -> F:
    """Return the function with each call in a `with` block of its handle."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator, which ends long after the call: "
            "use `with recorder.run(...)` or `with run.node(...)` inside of it"
        )
    read = _argument_reader(function) if inputs else None

    def open_call(args: Any, kwargs: Arguments) -> AbstractContextManager[Handle | None]:
        return open_handle(None if read is None else read(args, kwargs)) or nullcontext()

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def recorded_async(*args: Any, **kwargs: Any) -> Any:
            with open_call(args, kwargs) as handle:
                result = await function(*args, **kwargs)
                if outputs and handle is not None:
                    handle.outputs = result
            return result

        return cast("F", recorded_async)

    @functools.wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        with open_call(args, kwargs) as handle:
            result = function(*args, **kwargs)
            if outputs and handle is not None:
                handle.outputs = result
        return result

    return cast("F", recorded)


def name_of(function: Callable[..., Any]) -> str:
    """Return the default name of a workflow or node."""
    return getattr(function, "__name__", None) or type(function).__name__


def _argument_reader(
    function: Callable[..., Any],
) -> Callable[[tuple[Any, ...], Arguments], Arguments]:
    """Return a function that maps a call's arguments to their names, without `self` and `cls`."""
    signature = inspect.signature(function)
    names = list(signature.parameters)
    own = names[0] if names and names[0] in ("self", "cls") else None
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    is_plain = inspect.Parameter.VAR_POSITIONAL not in kinds

    def read(args: tuple[Any, ...], kwargs: Arguments) -> Arguments:
        if is_plain:
            given = dict(zip(names, args, strict=False)) | kwargs
        else:
            try:
                given = dict(signature.bind(*args, **kwargs).arguments)
            except TypeError:  # the call itself will raise the same error
                given = {}
        given.pop(own, None) if own else None
        return given

    return read

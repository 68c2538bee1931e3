"""Serves the OpenAPI document as JSON, without a page that loads scripts from other hosts."""

from copy import deepcopy
from importlib.metadata import version
from typing import Any, Final

from litestar import Request, Router
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition
from msgspec import Raw

from .parameters import refine

PATH: Final = "/api/openapi.json"


class RawSchemaPlugin(OpenAPISchemaPlugin):
    """Describes payloads: JSON of any shape."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        return value is Raw

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:  # noqa: ARG002, Litestar's signature
        return Schema(
            type=[
                OpenAPIType.OBJECT,
                OpenAPIType.ARRAY,
                OpenAPIType.STRING,
                OpenAPIType.NUMBER,
                OpenAPIType.BOOLEAN,
            ],
            description="JSON of any shape, as it was sent",
        )


class _Document(JsonRenderPlugin):
    """The document of Litestar with refined parameters."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return self.render_json(request, refine(deepcopy(openapi_schema)))


def openapi_config() -> OpenAPIConfig:
    """Return the configuration that serves the document at `PATH`."""
    return OpenAPIConfig(
        title="Runfold",
        version=version("runfold"),
        description="Execution history: push events, read runs, nodes and statistics.",
        use_handler_docstrings=True,
        render_plugins=[_Document(path="/")],
        # Litestar adds pages below the router's path; answer 404 for them.
        openapi_router=Router(
            PATH, route_handlers=[], include_in_schema=False, before_request=_only_the_document
        ),
    )


def _only_the_document(request: Request[Any, Any, Any]) -> None:
    if request.scope["path"] != PATH:
        raise NotFoundException

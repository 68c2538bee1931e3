"""The OpenAPI 3.1 document, as JSON; no page that would load scripts from elsewhere."""

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
    """A payload is JSON of any shape."""

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
    """The document as Litestar makes it, with what parameters may be."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return self.render_json(request, refine(deepcopy(openapi_schema)))


def openapi_config() -> OpenAPIConfig:
    """Serves the document at `PATH`, and nothing else."""
    return OpenAPIConfig(
        title="Runfold",
        version=version("runfold"),
        description="Execution history: push events, read runs, nodes and statistics.",
        use_handler_docstrings=True,
        render_plugins=[_Document(path="/")],
        # Litestar adds pages of its own below the router's path; they do not exist here.
        openapi_router=Router(
            PATH, route_handlers=[], include_in_schema=False, before_request=_only_the_document
        ),
    )


def _only_the_document(request: Request[Any, Any, Any]) -> None:
    if request.scope["path"] != PATH:
        raise NotFoundException

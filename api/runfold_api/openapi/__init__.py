"""The OpenAPI 3.1 document at `/api/openapi.json`.

Litestar derives it from the routes; `parameters` adds the limits that Python types cannot express,
and `request_bodies` the bodies that routes read as raw bytes. A test sends what the document
allows and forbids to every route, so it cannot differ from the service.
"""

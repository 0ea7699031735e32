"""The page ``/docs``: Swagger UI from the package, so that it works without the internet and asks no other host."""

from __future__ import annotations

from functools import cache
from importlib import resources

from fastapi import FastAPI, Response

from cytoray_analysis.errors import MissingFileError

POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#docs", deepLinking: true})\n'
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><link rel="stylesheet" href="docs/swagger-ui.css"></head>
<body><div id="docs"></div><script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body>
</html>
"""
_TYPES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript", "start.js": "text/javascript"}


def add_docs(api: FastAPI) -> None:
    """Add the page to an application, and the files that it needs."""

    @api.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(_PAGE.format(title=api.title), headers=_headers("text/html; charset=utf-8"))

    @api.get("/docs/{name}", include_in_schema=False)
    async def docs_file(name: str) -> Response:
        if name not in _TYPES:
            raise MissingFileError(f"expected one of the files {', '.join(_TYPES)}, got {name[:80]!r}", field="name")
        return Response(_content(name), headers=_headers(_TYPES[name]))


@cache
def _content(name: str) -> bytes:
    if name == "start.js":
        return _START.encode()
    return (resources.files("fastapi_swagger") / "resources" / name).read_bytes()


def _headers(media_type: str) -> dict[str, str]:
    return {"Content-Type": media_type, "Content-Security-Policy": POLICY}

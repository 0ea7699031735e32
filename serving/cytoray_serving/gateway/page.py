"""The page of the service: files of the package, and what a token may."""

from __future__ import annotations

import gzip
import mimetypes
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.errors import MissingFileError
from cytoray_services.tokens.access import Access

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; worker-src 'self' blob:; object-src 'none'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_START = "index.html"
_SMALL = 512  # bytes that are not worth compressing


class MyLimits(BaseModel):
    """What a request may have."""

    model_config = ConfigDict(frozen=True)

    body_megabytes: int = Field(description="Maximum size of a request.")


class Me(BaseModel):
    """The caller, and what the token allows."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Name of the token; local in a service without tokens.")
    scopes: list[str]
    team: str | None
    teams: list[str]
    models: list[str] | None = Field(description="The models that the caller may use; null for all.")
    administers: bool
    tokens: bool = Field(description="Whether the service requires tokens.")
    limits: MyLimits


@dataclass(frozen=True)
class _File:
    body: bytes
    packed: bytes
    media_type: str
    tag: str


def page_routes(access: Access, body_megabytes: int) -> APIRouter:
    """Return the routes of the page.

    Parameters
    ----------
    access
        The access rules; the files of the page need no token.
    body_megabytes
        Maximum size of a request.
    """
    router = APIRouter(tags=["page"])

    async def known(request: Request) -> None:
        request.state.caller = access.known(request.headers.get("authorization"))

    @router.get("/me", dependencies=[Depends(known)])
    async def me(request: Request) -> Me:
        """Show who the caller is, and what the token allows."""
        caller = request.state.caller
        return Me(
            name=caller.name,
            scopes=list(caller.scopes),
            team=caller.team,
            teams=sorted(caller.teams),
            models=None if caller.models is None else sorted(caller.models),
            administers=caller.administers,
            tokens=not access.open,
            limits=MyLimits(body_megabytes=body_megabytes),
        )

    @router.get("/", include_in_schema=False)
    async def start(request: Request) -> Response:
        return _response(request, _START, "no-cache")

    @router.get("/page/{path:path}", include_in_schema=False)
    async def file(path: str, request: Request) -> Response:
        # The names of all files but the start page contain a hash of their content.
        return _response(request, path, "public, max-age=31536000, immutable")

    return router


def _response(request: Request, path: str, keep: str) -> Response:
    found = _files().get(path)
    if found is None:
        raise MissingFileError(f"there is no file {path[:80]!r} of the page", field="path")
    headers = {
        "Content-Type": found.media_type,
        "Content-Security-Policy": POLICY,
        "Cache-Control": keep,
        "ETag": found.tag,
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    if len(found.body) > _SMALL and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, headers=headers | {"Content-Encoding": "gzip"})
    return Response(found.body, headers=headers)


@cache
def _files() -> dict[str, _File]:
    """Return the built files of the page by path."""
    folder = resources.files("cytoray_serving") / "page"
    found: dict[str, _File] = {}

    def add(place: resources.abc.Traversable, prefix: str) -> None:
        for entry in place.iterdir():
            if entry.is_dir():
                add(entry, f"{prefix}{entry.name}/")
                continue
            body = entry.read_bytes()
            kind = mimetypes.guess_type(entry.name)[0] or "application/octet-stream"
            text = kind.startswith("text/") or kind in ("application/javascript", "image/svg+xml")
            found[prefix + entry.name] = _File(
                body,
                gzip.compress(body, mtime=0),
                f"{kind}; charset=utf-8" if text else kind,
                f'"{sha256(body).hexdigest()[:32]}"',
            )

    add(folder, "")
    return found

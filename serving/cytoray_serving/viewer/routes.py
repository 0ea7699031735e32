"""The HTTP routes of stored images: send one once, see it as tiles, ask models about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.answer_warnings import AnswerWarning
from cytoray_analysis.errors import NotAcceptableError, RequestError
from cytoray_analysis.selection import EACH, Selection, merge, selection_of
from cytoray_analysis.uris import without_secrets
from cytoray_services.http.errors import ErrorBody
from cytoray_services.storage.allowed import Allowed
from cytoray_services.storage.locate import locate
from cytoray_services.tokens.access import Caller
from cytoray_serving.answers import choose_form, forms_of
from cytoray_serving.answers.arrays import FORM
from cytoray_serving.front.rules import HeldBytes
from cytoray_serving.gateway.json_body import is_json, parse_json
from cytoray_serving.gateway.making import Turns
from cytoray_serving.gateway.permitted import Permitted
from cytoray_serving.gateway.requests import unless_gone
from cytoray_serving.headers import answer_headers
from cytoray_serving.messages import Answer, Count, Question
from cytoray_serving.schema import ModelStatus, UriQuestion
from cytoray_serving.viewer.records import (
    AnswerList,
    AskedAnswer,
    ImageList,
    ObjectsTable,
    StoredAnswer,
    StoredImage,
)
from cytoray_serving.viewer.store import ImageFolder, ImageStore, Source
from cytoray_serving.viewer.viewer import Sent, TileAsked, Viewing, raised

Fetch = Callable[[UriQuestion, Caller, Count], Question]
"""Reads the files of a request by URI, in the locations of its caller."""
AllowedFor = Callable[[Caller], Allowed]
"""Returns the locations that a caller may name."""

_LONGEST_NAME = 200
_FETCHED_AT_ONCE = 2
_STORED_AT_ONCE = 4  # more would only wait in the memory of the viewer
_FOREVER = {"Cache-Control": "private, max-age=3600, immutable", "Vary": "Authorization, Accept-Encoding"}
_BINARY = {"type": "string", "format": "binary"}
_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "The request is malformed, or there is no such tile.",
        401: "No token, or an invalid token.",
        403: "The token lacks the scope, or the location is not allowed.",
        404: "There is no such image, answer or model.",
        413: "The image is too large; the message names the limit.",
        422: "The image cannot be read, or does not match the model.",
        429: "The images of the caller take too much disk space, or the queue is full.",
        503: "The service cannot answer now, or its disk is full.",
    }.items()
}


class ImageByUri(BaseModel):
    """An image that the service reads itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str = Field(description="URI of the image: s3://, https:// or file://.", min_length=1, max_length=2048)


_BODY = {
    "required": True,
    "description": "An image file, as for POST /models/{model}/predict, or JSON with a URI.",
    "content": {
        "application/octet-stream": {"schema": _BINARY},
        "image/*": {"schema": _BINARY},
        "application/json": {"schema": ImageByUri.model_json_schema()},
    },
}


def image_routes(
    store: ImageStore,
    viewer: Viewing,
    permitted: Callable[[Request], Permitted],
    fetch: Fetch,
    allowed: AllowedFor,
    bodies: HeldBytes,
    *,
    guard: Any,
) -> APIRouter:
    """Return the routes of stored images.

    Parameters
    ----------
    store
        The records of images and answers.
    viewer
        Reads and draws pixels.
    permitted
        Returns the service for the caller of a request.
    fetch
        Reads the pixels of an image that is named by a URI.
    allowed
        Returns the locations that a caller may name.
    bodies
        Counts the bytes of all requests.
    guard
        The FastAPI dependency that admits callers.
    """
    router = APIRouter(prefix="/images", tags=["images"], dependencies=[Depends(guard)], responses=_REFUSED)

    turns = Turns(_FETCHED_AT_ONCE)
    storing = asyncio.Semaphore(_STORED_AT_ONCE)

    async def folder_of(image_id: str, request: Request) -> ImageFolder:
        return await asyncio.to_thread(store.find, image_id, request.state.caller)

    @router.post(
        "",
        status_code=201,
        openapi_extra={"requestBody": _BODY},
    )
    async def add_image(
        request: Request,
        response: Response,
        name: Annotated[str, Query(max_length=_LONGEST_NAME, description="Name of the file.")] = "image",
        series: Annotated[str | None, Query(description="Which image of a file of several.")] = None,
        input_axes: Annotated[str | None, Query(description="Meaning of the file's axes, such as TYX.")] = None,
    ) -> StoredImage:
        """Store an image for its owner."""
        given = {key: value for key, value in (("series", series), ("input_axes", input_axes)) if value is not None}
        selection = selection_of(given)
        if selection.series == EACH:
            raise RequestError("expected one series, got each", field="series", hint="name one series of the file")
        if is_json(request):
            sent = await fetched(await named(request), request.state.caller, selection)
        else:
            sent = Sent(name, await request.body(), selection)
        if not sent.body and sent.source is None:
            raise RequestError("expected an image in the request body, got none", field="body")
        async with storing:
            stored = raised(await viewer.add(request.state.caller, sent))
        response.headers["Location"] = f"/images/{stored.id}"
        return stored

    @router.get("")
    async def list_images(request: Request) -> ImageList:
        """List the stored images of the caller."""
        return ImageList(images=await asyncio.to_thread(store.of, request.state.caller))

    @router.get("/{image_id}")
    async def show_image(image_id: str, request: Request) -> StoredImage:
        """Show one stored image."""
        folder = await folder_of(image_id, request)
        return await asyncio.to_thread(folder.record)

    @router.delete("/{image_id}", status_code=204)
    async def remove_image(image_id: str, request: Request) -> None:
        """Remove an image and its answers."""
        await asyncio.to_thread(store.remove, await folder_of(image_id, request))

    tiles: dict[str, Any] = {
        "response_class": Response,
        "responses": {
            200: {"content": {"image/png": {"schema": _BINARY}, "application/octet-stream": {"schema": _BINARY}}}
        },
    }

    @router.get("/{image_id}/tiles/{level}/{column}/{row}", **tiles)
    async def image_tile(
        image_id: str, asked: Annotated[TileAsked, Depends(_tile_asked)], request: Request
    ) -> Response:
        """Draw a tile: 8-bit grey with the contrast from `low` to `high`, or RGB."""
        return await drawn(image_id, asked, request)

    @router.post("/{image_id}/answers", status_code=201)
    async def ask(image_id: str, asked: AskedAnswer, request: Request, response: Response) -> StoredAnswer:
        """Ask a model about a stored image, and store its answer."""
        folder = await folder_of(image_id, request)
        may, began = permitted(request), time.monotonic()
        version = None if asked.version is None else str(asked.version)
        answer = await unless_gone(request, _answer(may, folder, asked, version, FORM.media_type, fetch))
        seconds = time.monotonic() - began
        async with storing:
            stored = raised(await viewer.keep(request.state.caller, image_id, asked, answer, seconds))
        response.headers["Location"] = f"/images/{image_id}/answers/{stored.id}"
        return stored

    @router.get("/{image_id}/answers")
    async def list_answers(image_id: str, request: Request) -> AnswerList:
        """List the answers about an image."""
        folder = await folder_of(image_id, request)
        return AnswerList(answers=await asyncio.to_thread(lambda: [one.record() for one in folder.answers()]))

    @router.get("/{image_id}/answers/{answer_id}")
    async def show_answer(image_id: str, answer_id: str, request: Request) -> StoredAnswer:
        """Show one answer."""
        folder = await folder_of(image_id, request)
        return await asyncio.to_thread(lambda: folder.answer(answer_id).record())

    @router.delete("/{image_id}/answers/{answer_id}", status_code=204)
    async def remove_answer(image_id: str, answer_id: str, request: Request) -> None:
        """Remove an answer."""
        folder = await folder_of(image_id, request)
        await asyncio.to_thread(lambda: folder.answer(answer_id).remove())

    @router.get("/{image_id}/answers/{answer_id}/tiles/{level}/{column}/{row}", **tiles)
    async def answer_tile(
        image_id: str, answer_id: str, asked: Annotated[TileAsked, Depends(_tile_asked)], request: Request
    ) -> Response:
        """Return a tile: of labels uint32, little-endian, row by row, 0 for background; of a predicted image PNG."""
        return await drawn(image_id, replace(asked, answer=answer_id), request)

    @router.get("/{image_id}/answers/{answer_id}/objects", response_model=ObjectsTable)
    async def objects(image_id: str, answer_id: str, request: Request) -> Response:
        """Return the table of objects."""
        folder = await folder_of(image_id, request)
        body = await asyncio.to_thread(lambda: folder.answer(answer_id).objects())
        return Response(body, media_type="application/json")

    @router.get(
        "/{image_id}/answers/{answer_id}/file",
        response_class=Response,
        responses={200: {"content": {"*/*": {"schema": _BINARY}}}},
    )
    async def download(
        image_id: str,
        answer_id: str,
        request: Request,
        named: Annotated[
            str | None, Query(alias="format", max_length=32, description="Such as tif, csv or geojson.")
        ] = None,
        accept: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Return the answer in a format of its kind; the same version of the model gives it again."""
        folder = await folder_of(image_id, request)
        record = await asyncio.to_thread(lambda: folder.answer(answer_id).record())
        forms = forms_of(record.kind)
        if named is not None and named not in forms:
            raise NotAcceptableError(f"expected one of {', '.join(forms)}, got {named!r}", field="format")
        form = choose_form(accept, record.kind) if named is None else forms[named]
        asked, version = AskedAnswer.model_validate(record.question), record.model.version
        if record.steps and asked.segmentation is None:  # a pipeline has no version of its own
            version = None
        else:
            asked = asked.model_copy(update={"model": record.model.name})
        work = _answer(permitted(request), folder, asked, version, form.media_type, fetch)
        answer = await unless_gone(request, work)
        if answer.digest != record.model.digest or list(answer.steps) != record.steps:
            raise NotAcceptableError(
                f"expected the models that gave this answer ({record.model.name}), but the service has others now",
                field="answer",
                hint="ask again: POST /images/ID/answers",
            )
        return Response(answer.body, headers=answer_headers(answer))

    async def named(request: Request) -> str:
        hint = 'such as {"uri": "s3://bucket/cells.tif"}'
        return parse_json(ImageByUri, await request.body(), what="the URI of an image", hint=hint).uri

    async def fetched(uri: str, caller: Caller, selection: Selection) -> Sent:
        name = unquote(urlsplit(uri).path).rstrip("/").rpartition("/")[2][:_LONGEST_NAME] or "image"
        source, shown = Source(uri=uri, allowed=allowed(caller)), without_secrets(uri)

        def read(count: Count) -> Sent:
            location = locate(uri, source.allowed, field="uri")
            if location.is_zarr():
                return Sent(name, b"", selection, shown, source)
            return Sent(name, location.read_bytes(count), selection, shown)

        with bodies.request() as holder:
            return await turns.run(caller.name, lambda: read(partial(bodies.add, holder)))

    async def drawn(image_id: str, asked: TileAsked, request: Request) -> Response:
        packed = "gzip" in request.headers.get("accept-encoding", "")
        tile = raised(await viewer.tile(request.state.caller, image_id, replace(asked, packed=packed)))
        coding = {"Content-Encoding": "gzip"} if tile.packed else {}
        return Response(tile.body, headers={"Content-Type": tile.media_type, **_FOREVER, **coding})

    return router


async def _answer(
    may: Permitted, folder: ImageFolder, asked: AskedAnswer, version: str | None, accept: str, fetch: Fetch
) -> Answer:
    """Ask a model about a stored image."""

    def make(_: ModelStatus, count: Count) -> Question:
        record = folder.record()
        if (source := folder.source()) is not None:
            choices = merge(record.selection, asked.selection).given()
            question = UriQuestion(image=source.uri, segmentation=asked.segmentation, **choices)
            return replace(fetch(question, may.caller, count), accept=accept)
        count(folder.upload.stat().st_size)
        return Question(
            image=folder.upload.read_bytes(),
            accept=accept,
            segmentation=asked.segmentation,
            selection=merge(record.selection, asked.selection),
            warnings=tuple(AnswerWarning(one.code, one.sentence) for one in record.warnings),
        )

    async with may.made(asked.model, version, make, fetching=True) as question:
        return await may.answer(asked.model, version, question)


def _tile_asked(
    level: int,
    column: int,
    row: int,
    t: int = 0,
    z: int = 0,
    c: int | None = None,
    low: float | None = None,
    high: float | None = None,
) -> TileAsked:
    return TileAsked(level, column, row, t, z, c, low, high)

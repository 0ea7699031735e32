"""The HTTP routes of data sets, which read and write their folders."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from cytoray_analysis.errors import DatasetNotFoundError, RequestError
from cytoray_analysis.selection import EVERYTHING
from cytoray_services.corrections.change import Change as Changed
from cytoray_services.corrections.dataset_folder import DatasetFolder
from cytoray_services.corrections.item import ItemFolder, StaleRevisionError
from cytoray_services.corrections.label_tiles import label_tile, object_table
from cytoray_services.corrections.records import Change, DataSetStatus, EditLog, ItemStatus, ObjectTable
from cytoray_services.corrections.store import DatasetStore
from cytoray_services.http.errors import ErrorBody
from cytoray_serving.datasets.item_form import REQUEST_BODY, read_item_form
from cytoray_serving.datasets.schema import DataSetList, Edits, ItemList, NewDataSet, NextItem, Stale
from cytoray_serving.datasets.stored_images import StoredItem, add_stored, image_address, image_bytes
from cytoray_serving.gateway.json_body import is_json, parse_json
from cytoray_serving.gateway.making import Turns
from cytoray_serving.viewer.records import StoredImage
from cytoray_serving.viewer.store import ImageStore
from cytoray_serving.viewer.viewer import Sent, Viewing, raised

T = TypeVar("T")
_EXAMPLE = 'such as {"image": "img-…", "answer": "ans-…"}'
_AT_ONCE = 2  # requests that hold all labels of an item in memory
_REVISION = re.compile(r'"?(\d{1,9})"?')
Name = Annotated[str, Path(min_length=1, max_length=64, description="Name of the data set.")]
Item = Annotated[str, Path(min_length=1, max_length=64, description="ID of the item.")]
Index = Annotated[int, Path(ge=0, lt=2**31)]
Entry = Annotated[int, Query(ge=0, lt=2**31)]
_ETAG = {"ETag": {"description": "The revision of the item.", "schema": {"type": "string"}}}


def _errors(**described: str) -> dict[int | str, dict[str, Any]]:
    return {int(name.lstrip("_")): {"model": ErrorBody, "description": text} for name, text in described.items()}


_TOKEN = _errors(_401="No token, or an invalid token.", _403="The token lacks the scope or the team.")
_READ = _TOKEN | _errors(
    _404="No such data set or item.",
    _422="The request cannot be understood.",
    _503="A record cannot be read or written.",
)
_CHANGE = _READ | _errors(
    _400="The request is malformed or cannot be done.",
    _409="The name or the image is there already.",
    _413="The body or the image is too large.",
    _429="Too many requests at once.",
)
_ITEM = REQUEST_BODY | {
    "content": REQUEST_BODY["content"] | {"application/json": {"schema": StoredItem.model_json_schema()}}
}
_TILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Labels of width × height pixels, uint32, little-endian, row by row, 0 for background.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "headers": _ETAG,
    },
    304: {"description": "The tile that the caller has is the newest."},
}


def dataset_routes(
    store: DatasetStore,
    images: ImageStore,
    viewer: Viewing,
    *,
    changing: tuple[Any, ...] = (),
    reading: tuple[Any, ...] = (),
) -> APIRouter:
    """Create the routes of data sets.

    Parameters
    ----------
    store
        The data sets.
    images, viewer
        Stored images, which become items, and which show the images of items.
    changing, reading
        Dependencies (``Depends(…)``) of the routes that change data sets, and of those that show them: they refuse
        callers without the scope, and store the caller in ``request.state.caller``.
    """
    router = APIRouter(prefix="/datasets", tags=["datasets"])
    turns = Turns(_AT_ONCE)
    reads: dict[str, Any] = {"dependencies": list(reading), "responses": _READ}
    changes: dict[str, Any] = {"dependencies": list(changing), "responses": _CHANGE}

    async def in_turn(request: Request, work: Callable[[], T]) -> T:
        return await turns.run(request.state.caller.name, work)

    async def known(name: str, request: Request) -> DatasetFolder:
        return await asyncio.to_thread(store.find, name, request.state.caller)

    async def item_of(name: str, item: str, request: Request) -> ItemFolder:
        return (await known(name, request)).item(item)

    @router.get("", dependencies=list(reading), responses=_TOKEN | _errors(_503="A record cannot be read."))
    async def list_datasets(request: Request) -> DataSetList:
        """List the data sets of the caller and of the caller's teams, newest first."""
        caller = request.state.caller
        return await in_turn(request, lambda: DataSetList(datasets=tuple(_statuses(store.seen_by(caller)))))

    @router.post("", status_code=201, **changes)
    async def create_dataset(new: NewDataSet, request: Request, response: Response) -> DataSetStatus:
        """Make an empty data set."""
        made = await asyncio.to_thread(store.create, new.name, request.state.caller, new.team)
        response.headers["Location"] = f"/datasets/{new.name}"
        return await asyncio.to_thread(made.status)

    @router.get("/{name}", **reads)
    async def show_dataset(name: Name, request: Request) -> DataSetStatus:
        """Show a data set with its version."""
        return await in_turn(request, (await known(name, request)).status)

    @router.delete("/{name}", status_code=204, **changes)
    async def delete_dataset(
        name: Name, request: Request, confirm: Annotated[str | None, Query(max_length=64)] = None
    ) -> None:
        """Remove a data set; one with items only if `confirm` is its name."""
        dataset = await known(name, request)
        await asyncio.to_thread(dataset.delete, confirm)

    @router.get("/{name}/next", **reads)
    async def next_item(name: Name, request: Request) -> NextItem:
        """Return the item to look at next: the unfinished one whose objects are least certain."""
        return NextItem(item=await in_turn(request, (await known(name, request)).next_item))

    @router.get("/{name}/items", **reads)
    async def list_items(name: Name, request: Request) -> ItemList:
        """List the items of a data set."""
        dataset = await known(name, request)
        return await in_turn(request, lambda: ItemList(items=tuple(item.status() for item, _ in dataset.items())))

    @router.post("/{name}/items", status_code=201, openapi_extra={"requestBody": _ITEM}, **changes)
    async def add_item(name: Name, request: Request, response: Response) -> ItemStatus:
        """Add an image with its masks, or a stored image with an answer."""
        dataset, caller = await known(name, request), request.state.caller
        if is_json(request):
            asked = parse_json(StoredItem, await request.body(), what="a stored image", hint=_EXAMPLE)

            def add() -> ItemStatus:
                image = images.find(asked.image, caller)
                if image.upload.exists():
                    store.require_room(dataset, image.upload.stat().st_size)
                answer = None if asked.answer is None else image.answer(asked.answer)
                return add_stored(dataset, image, answer, caller, asked.group).status()

            return _added(name, await in_turn(request, add), response)
        async with read_item_form(request) as form:

            def add_form() -> ItemStatus:
                store.require_room(dataset, form.image.stat().st_size)
                found = dataset.add_item(
                    form.name, form.image, form.masks, form.objects, caller=caller, group=form.group
                )
                return found.status()

            added = await in_turn(request, add_form)
        return _added(name, added, response)

    @router.get("/{name}/items/{item}", **reads)
    async def show_item(name: Name, item: Item, request: Request, response: Response) -> ItemStatus:
        """Show an item; the header `ETag` has its revision."""
        found = await in_turn(request, (await item_of(name, item, request)).status)
        response.headers["ETag"] = _etag(found.revision)
        return found

    @router.post("/{name}/items/{item}/image", **reads)
    async def show_image_of(name: Name, item: Item, request: Request) -> StoredImage:
        """Return the image of an item as a stored image of the caller, whose tiles show it."""
        folder, caller, address = await item_of(name, item, request), request.state.caller, image_address(name, item)
        record = await asyncio.to_thread(folder.record)
        for image in await asyncio.to_thread(images.of, caller):
            if image.uri == address:
                await asyncio.to_thread(images.find, image.id, caller)  # its use is noted
                return image
        body = await in_turn(request, lambda: image_bytes(store.folder / name / record.image, item))
        return raised(await viewer.add(caller, Sent(record.name, body, EVERYTHING, address)))

    @router.post(
        "/{name}/items/{item}/edits",
        dependencies=list(changing),
        responses=_CHANGE | {409: {"model": Stale, "description": "There are newer edits; nothing was changed."}},
        response_model=Change,
    )
    async def edit_item(
        name: Name,
        item: Item,
        edits: Edits,
        request: Request,
        response: Response,
        if_match: Annotated[str | None, Header(max_length=64, description="The revision that was edited.")] = None,
    ) -> Change | Response:
        """Make edits, all or none; they are on disk when the response is sent."""
        folder, base = await item_of(name, item, request), _base_of(if_match)
        who = request.state.caller.name
        try:
            revision, change = await in_turn(request, lambda: folder.edit(edits.edits, base=base, who=who))
        except StaleRevisionError as error:
            body = Stale(**error.describe(), revision=error.revision, theirs=error.theirs)
            return JSONResponse(
                body.model_dump(mode="json", by_alias=True), error.status, {"ETag": _etag(error.revision)}
            )
        response.headers["ETag"] = _etag(revision)
        return _described(revision, change, folder)

    @router.get("/{name}/items/{item}/edits", **reads)
    async def list_edits(
        name: Name, item: Item, request: Request, response: Response, after: Annotated[int, Query(ge=0)] = 0
    ) -> EditLog:
        """List all edits of an item, or those after a revision."""
        folder = await item_of(name, item, request)
        found = await in_turn(request, lambda: folder.edits(0))
        response.headers["ETag"] = _etag(len(found))
        return EditLog(revision=len(found), edits=found[after:])

    @router.get("/{name}/items/{item}/labels/objects", **reads)
    async def list_objects(name: Name, item: Item, request: Request, response: Response) -> ObjectTable:
        """List all objects: who made each, whether it was edited, class, confidence, pixels and centre."""
        folder = await item_of(name, item, request)
        corrected = await in_turn(request, folder.corrected)
        response.headers["ETag"] = _etag(corrected.revision)
        return await in_turn(request, lambda: object_table(corrected))

    @router.get(
        "/{name}/items/{item}/labels/{level}/{column}/{row}",
        dependencies=list(reading),
        responses=_READ | _errors(_400="No such tile, frame or plane.") | _TILE,
        response_class=Response,
    )
    async def label_tile_of(
        name: Name,
        item: Item,
        level: Index,
        column: Index,
        row: Index,
        request: Request,
        t: Entry = 0,
        z: Entry = 0,
        if_none_match: Annotated[str | None, Header(max_length=256)] = None,
        accept_encoding: Annotated[str, Header(max_length=256)] = "",
    ) -> Response:
        """Return a tile of at most 256 × 256 labels; level n shows every 2ⁿ-th pixel."""
        folder = await item_of(name, item, request)

        def read() -> Response:
            etag = _etag(folder.state().revision)  # before the labels: a tile is never older than its tag
            headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
            if etag in (if_none_match or ""):
                return Response(status_code=304, headers=headers)
            content = label_tile(folder.labels(), level, column, row, t=t, z=z).tobytes()
            if re.search(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))", accept_encoding):
                content = gzip.compress(content, 1, mtime=0)
                headers["Content-Encoding"] = "gzip"
            return Response(content, media_type="application/octet-stream", headers=headers)

        return await asyncio.to_thread(read)

    return router


def _statuses(datasets: Iterable[DatasetFolder]) -> Iterator[DataSetStatus]:
    for one in datasets:
        with suppress(DatasetNotFoundError):  # removed in between
            yield one.status()


def _added(name: str, added: ItemStatus, response: Response) -> ItemStatus:
    response.headers["Location"] = f"/datasets/{name}/items/{added.id}"
    response.headers["ETag"] = _etag(added.revision)
    return added


def _etag(revision: int) -> str:
    return f'"{revision}"'


def _base_of(if_match: str | None) -> int:
    found = _REVISION.fullmatch((if_match or "").strip())
    if found is None:
        raise RequestError(
            f"expected the header If-Match with the revision of the labels, got {if_match!r}",
            field="If-Match",
            hint='such as If-Match: "7", from ETag of the item',
        )
    return int(found[1])


def _described(revision: int, change: Changed, folder: ItemFolder) -> Change:
    box = change.box(folder.stack())
    frames, planes, rows, columns = box or (None,) * 4
    return Change(
        revision=revision,
        changed=None if rows is None or columns is None else (columns[0], rows[0], columns[1], rows[1]),
        frames=frames,
        planes=planes,
        objects=tuple(sorted(change.touched)),
    )

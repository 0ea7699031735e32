"""What a job works on: the images that its input names, in one order, each with a name of its own for the answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_serving.inputs import are_frames
from cytoray_serving.jobs.request import JobRequest
from cytoray_serving.jobs.store import Item
from cytoray_serving.places import Allowed, Place, place

_IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".czi", ".nd2", ".lif")


def check_places(request: JobRequest, allowed: Allowed) -> None:
    """Raise unless everything that a request names is there, and nothing where its answers go.

    Raises
    ------
    RequestError
        A URI is none, or there is something at the output already.
    ForbiddenError
        A place is not allowed.
    MissingFileError
        There is nothing at an input.
    """
    for field in ("input", "masks", "boxes"):
        uri = getattr(request, field)
        if uri is not None and not place(uri, allowed, field=field).exists():
            raise MissingFileError(f"there is nothing at {uri}", field=field, hint="check the URI")
    output = place(request.output, allowed, field="output")
    if request.output.startswith(("http://", "https://")):
        raise RequestError("answers are written to file or s3 URIs, not to web addresses", field="output")
    if output.exists() and (not output.is_folder() or output.children()):
        raise RequestError(
            f"expected an empty folder or none at {request.output}, got something there already",
            field="output",
            hint="name a new folder: a job never replaces what is there",
        )


def plan_items(request: JobRequest, allowed: Allowed, *, movies: bool) -> list[Item]:
    """List the images of a job.

    Parameters
    ----------
    movies
        Whether the model takes movies, so that a folder of numbered frames is one item.

    Raises
    ------
    MissingFileError
        There is none.
    """
    source = place(request.input, allowed, field="input")
    images = list(_images(source, request.pattern, movies=movies))
    if not images:
        raise MissingFileError(
            f"there is no image at {request.input} whose name fits {request.pattern!r}",
            field="input",
            hint=f"images end in {', '.join(_IMAGE_SUFFIXES)} or .zarr; a pattern may name others",
        )
    masks = _masks(request, allowed, movie=len(images) == 1)
    taken: set[str] = set()
    items = []
    for index, image in enumerate(images):
        name = _free(stem(image.name), taken)
        told = None if masks is None else masks.get(stem(image.name), f"{request.masks}/{stem(image.name)}")
        if masks is not None and len(images) == 1:
            told = masks.get(stem(image.name), request.masks)
        items.append(Item(index=index, uri=image.uri, name=name, masks=told, alone=len(images) == 1))
    return items


def stem(name: str) -> str:
    """Return the name of an image without the suffixes of its format; that of a field of a plate in one piece."""
    if "/" in name:
        return name.replace("/", "-")
    return name.removesuffix(PurePosixPath(name).suffix).removesuffix(".ome") or name


def _images(source: Place, pattern: str, *, movies: bool) -> Iterator[Place]:
    if source.is_zarr():
        yield from source.children() or [source]  # the fields of a plate
        return
    if not source.is_folder():
        yield source
        return
    children = source.children()
    if movies and are_frames(child.name for child in children):
        yield source
        return
    for child in children:
        if not fnmatchcase(child.name, pattern):
            continue
        if child.name.endswith(".zarr"):
            fields = child.children()
            for field in fields:
                yield replace(field, name=f"{stem(child.name)}/{field.name}")
            if not fields:
                yield child
        elif pattern != "*" or PurePosixPath(child.name).suffix.lower() in _IMAGE_SUFFIXES:
            yield child


def _masks(request: JobRequest, allowed: Allowed, *, movie: bool) -> dict[str, str] | None:
    """Return the URI of masks by the stem of their names; None where no masks are named."""
    if request.masks is None:
        return None
    source = place(request.masks, allowed, field="masks")
    if source.is_folder() and not source.is_zarr():
        return {stem(child.name): child.uri for child in source.children()}
    if not movie:
        raise RequestError(
            f"expected a folder of masks for several images, got {request.masks}",
            field="masks",
            hint="name a folder in which masks have the names of their images",
        )
    return {}


def _free(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, with a number where it must be, and take it."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free)
    return free

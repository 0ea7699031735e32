"""What a job works on: the images that its input names, in one order, each with a name of its own for the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import PurePath, PurePosixPath

from cytoray_analysis.errors import CytorayError, MissingFileError, RequestError
from cytoray_analysis.images import list_series
from cytoray_analysis.images.names import image_stem, is_image_name, name_part
from cytoray_analysis.images.series import each_series
from cytoray_analysis.selection import EACH, Selection
from cytoray_analysis.tracking.ctc import is_one_frame
from cytoray_analysis.tracking.frame_names import FRAMES, known_frames
from cytoray_serving.given_objects import match_masks
from cytoray_serving.input_files import READ_SUFFIXES
from cytoray_serving.jobs.request import JobRequest, LeftOutItem
from cytoray_serving.jobs.store import Item
from cytoray_serving.places import Allowed, Place, place

_SHOWN = 5  # names in a message


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


def plan_items(request: JobRequest, allowed: Allowed, *, movies: bool, spatial_axes: str = "YX") -> list[Item]:
    """List the images of a job; see :func:`plan`."""
    return plan(request, allowed, movies=movies, spatial_axes=spatial_axes).items


@dataclass(frozen=True)
class Plan:
    """The images of a job, in order, and what its folder holds beside them."""

    items: list[Item]
    left_out: list[LeftOutItem]


def plan(request: JobRequest, allowed: Allowed, *, movies: bool, spatial_axes: str = "YX") -> Plan:
    """List the images of a job, and what is left out of its folder and why.

    Parameters
    ----------
    movies
        Whether the model takes movies, so that a folder of numbered frames is one item.
    spatial_axes
        Of a frame of the model: ``ZYX`` where frames are stacks.

    Raises
    ------
    MissingFileError
        There is none.
    RequestError
        It is not clear which masks are those of an image.
    """
    source = place(request.input, allowed, field="input")
    left_out: list[LeftOutItem] = []
    images = list(_images(source, request.pattern, left_out, spatial_axes if movies else None))
    if not images:
        held = f"; left out: {', '.join(one.item for one in left_out[:_SHOWN])}" if left_out else ""
        raise MissingFileError(
            f"there is no image at {request.input} whose name fits {request.pattern!r}{held}",
            field="input",
            hint="images end in .tif, .png, .jpg, .czi, .zarr or the like; a pattern may name others, such as *.dat",
        )
    masks = _masks(request, allowed, images)
    taken: set[str] = set()
    items: list[Item] = []
    for image in images:
        # A place where there is nothing is reported when the image is answered, beside the others.
        missing = request.masks if len(images) == 1 else f"{request.masks}/{stem(image.name)}"
        own_masks = None if masks is None else masks.get(image.uri, missing)
        for series, chosen in _series(image, request.selection):
            name = _free("-".join(filter(None, (stem(image.name), name_part(series) if series else ""))), taken)
            alone = len(images) == 1
            items.append(
                Item(index=len(items), uri=image.uri, name=name, masks=own_masks, alone=alone, series=chosen.series)
            )
    return Plan(items, left_out)


def _series(image: Place, selection: Selection) -> list[tuple[str, Selection]]:
    """Return what is to be answered of a file: each of its series with its name, or the file itself."""
    if selection.series != EACH or image.is_zarr() or image.is_folder():
        return [("", selection.without("series") if selection.series == EACH else selection)]
    try:
        with image.local() as path:
            return each_series(list_series(path), selection)
    except CytorayError:
        # One bad image keeps no other from being answered: its error is raised when it is read.
        return [("", selection.without("series"))]


def stem(name: str) -> str:
    """Return the name of an image without the suffixes of its format; that of a field of a plate in one piece."""
    return name.replace("/", "-") if "/" in name else image_stem(name) or name


def _images(source: Place, pattern: str, left_out: list[LeftOutItem], frames_of: str | None) -> Iterator[Place]:
    if source.is_zarr():
        yield from source.children() or [source]  # the fields of a plate
        return
    if not source.is_folder():
        yield source
        return
    children = source.children()
    if frames_of is not None and _are_frames(children, frames_of):
        yield source
        return
    for child in children:
        reason = _reason_left_out(child.name, pattern)
        if reason is not None:
            left_out.append(LeftOutItem(item=child.name, reason=reason))
        elif child.name.endswith(".zarr"):
            fields = child.children()
            for field in fields:
                yield replace(field, name=f"{stem(child.name)}/{field.name}")
            if not fields:
                yield child
        else:
            yield child


def _are_frames(children: Sequence[Place], spatial_axes: str) -> bool:
    """Whether files are the frames of one movie: by their names, or because the first of several is one frame."""
    images = [child for child in children if is_image_name(child.name)]
    if known_frames((image.name for image in images), FRAMES):
        return True
    if len(images) < 2 or images[0].is_zarr():
        return False
    with images[0].local() as path:
        return is_one_frame(path, spatial_axes)


def _reason_left_out(name: str, pattern: str) -> str | None:
    """Say why a name of a folder is no image; None for images. What a file holds is not looked at: it may be far."""
    if not fnmatchcase(name, pattern):
        return f"its name does not fit {pattern}"
    if pattern != "*" or name.lower().endswith(READ_SUFFIXES):
        return None
    suffix = PurePosixPath(name).suffix.lower()
    return f"{suffix} is no suffix of an image that is read here" if suffix else "a folder, or no suffix of an image"


def _masks(request: JobRequest, allowed: Allowed, images: list[Place]) -> dict[str, str] | None:
    """Return the URI of the masks of each image, by its own; None where no masks are named."""
    if request.masks is None:
        return None
    source = place(request.masks, allowed, field="masks")
    if not source.is_folder() or source.is_zarr():
        if len(images) == 1:
            return {}
        raise RequestError(
            f"expected a folder of masks for several images, got {request.masks}",
            field="masks",
            hint="name a folder in which masks have the names of their images",
        )
    uris = {PurePosixPath(child.name): child.uri for child in source.children()}
    names: dict[PurePath, Place] = {
        PurePosixPath(f"/{index}/{image.name.replace('/', '-')}"): image for index, image in enumerate(images)
    }
    found: dict[str, str] = {}
    users: dict[PurePath, str] = {}
    for path, masks in match_masks(uris, list(names)).items():
        if len(masks) > 1 or (masks and masks[0] in users):
            several = " and ".join(map(str, masks)) if len(masks) > 1 else f"{masks[0]} for {users[masks[0]]}"
            raise RequestError(
                f"which masks are those of {names[path].name} is ambiguous: there is also {several}",
                field="masks",
                hint="give each image masks of its own name",
            )
        if masks:
            users[masks[0]] = names[path].name
            found[names[path].uri] = uris[PurePosixPath(masks[0])]
    return found


def _free(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, whatever its capitals, with a number where it must be, and take it."""
    free, number = name, 1
    while free.casefold() in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free.casefold())
    return free

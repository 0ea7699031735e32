"""The plan of a job: the images of its input in a fixed order, each with a unique name for its answer."""

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
from cytoray_services.storage.allowed import Allowed
from cytoray_services.storage.locate import locate
from cytoray_services.storage.location import StorageLocation
from cytoray_serving.jobs.request import JobRequest, LeftOutItem
from cytoray_serving.jobs.store import Item
from cytoray_serving.predict.given_objects import match_masks
from cytoray_serving.predict.input_files import READ_SUFFIXES

_SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Plan:
    """The images of a job in order, and what is left out of its folder."""

    items: list[Item]
    left_out: list[LeftOutItem]


def plan(request: JobRequest, allowed: Allowed, *, movies: bool, spatial_axes: str = "YX") -> Plan:
    """List the images of a job, and what is left out of its folder, with the reason.

    Parameters
    ----------
    movies
        Whether the model takes movies, so that a folder of numbered frames is one item.
    spatial_axes
        Spatial axes of a frame: ``ZYX`` if frames are stacks.

    Raises
    ------
    MissingFileError
        There is no image.
    RequestError
        The masks of an image are ambiguous.
    """
    source = locate(request.input, allowed, field="input")
    left_out: list[LeftOutItem] = []
    images = list(_images(source, request.pattern, left_out, spatial_axes if movies else None))
    if not images:
        held = f"; left out: {', '.join(one.item for one in left_out[:_SHOWN])}" if left_out else ""
        raise MissingFileError(
            f"expected an image at {request.input} with a name that matches {request.pattern!r}, got none{held}",
            field="input",
            hint="images have suffixes such as .tif, .png, .jpg, .czi or .zarr; use a pattern such as *.dat for others",
        )
    masks = _masks(request, allowed, images)
    taken: set[str] = set()
    items: list[Item] = []
    for image in images:
        # A missing file is reported when the image is processed, with the others.
        missing = request.masks if len(images) == 1 else f"{request.masks}/{stem(image.name)}"
        own_masks = None if masks is None else masks.get(image.uri, missing)
        for series, chosen in _series(image, request.selection):
            name = _free("-".join(filter(None, (stem(image.name), name_part(series) if series else ""))), taken)
            alone = len(images) == 1
            items.append(
                Item(index=len(items), uri=image.uri, name=name, masks=own_masks, alone=alone, series=chosen.series)
            )
    return Plan(items, left_out)


def _series(image: StorageLocation, selection: Selection) -> list[tuple[str, Selection]]:
    """Return the parts of a file to process: each of its series with its name, or the file itself."""
    if selection.series != EACH or image.is_zarr() or image.is_folder():
        return [("", selection.without("series") if selection.series == EACH else selection)]
    try:
        with image.local() as path:
            return each_series(list_series(path, alone=True), selection)
    except CytorayError:
        # One bad image does not stop the others: its error is raised when it is read.
        return [("", selection.without("series"))]


def stem(name: str) -> str:
    """Return the name of an image without the suffixes of its format; for a field of a plate as one name."""
    return name.replace("/", "-") if "/" in name else image_stem(name) or name


def _images(
    source: StorageLocation, pattern: str, left_out: list[LeftOutItem], frames_of: str | None
) -> Iterator[StorageLocation]:
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


def _are_frames(children: Sequence[StorageLocation], spatial_axes: str) -> bool:
    """Whether files are the frames of one movie: by their names, or because the first of several files is one frame."""
    images = [child for child in children if is_image_name(child.name)]
    if known_frames((image.name for image in images), FRAMES):
        return True
    if len(images) < 2 or images[0].is_zarr():
        return False
    with images[0].local() as path:
        return is_one_frame(path, spatial_axes, alone=True)


def _reason_left_out(name: str, pattern: str) -> str | None:
    """Return why a name in a folder is not an image; None for images. Does not read files, which may be remote."""
    if not fnmatchcase(name, pattern):
        return f"its name does not match {pattern}"
    if pattern != "*" or name.lower().endswith(READ_SUFFIXES):
        return None
    suffix = PurePosixPath(name).suffix.lower()
    return f"{suffix} is not the suffix of a supported image format" if suffix else "a folder, or without a suffix"


def _masks(request: JobRequest, allowed: Allowed, images: list[StorageLocation]) -> dict[str, str] | None:
    """Return the URI of the masks for the URI of each image; None if no masks are given."""
    if request.masks is None:
        return None
    source = locate(request.masks, allowed, field="masks")
    if not source.is_folder() or source.is_zarr():
        if len(images) == 1:
            return {}
        raise RequestError(
            f"expected a folder of masks for several images, got {request.masks}",
            field="masks",
            hint="give a folder of masks with the names of the images",
        )
    uris = {PurePosixPath(child.name): child.uri for child in source.children()}
    names: dict[PurePath, StorageLocation] = {
        PurePosixPath(f"/{index}/{image.name.replace('/', '-')}"): image for index, image in enumerate(images)
    }
    found: dict[str, str] = {}
    users: dict[PurePath, str] = {}
    for path, masks in match_masks(uris, list(names)).items():
        if len(masks) > 1 or (masks and masks[0] in users):
            several = " and ".join(map(str, masks)) if len(masks) > 1 else f"{masks[0]} for {users[masks[0]]}"
            raise RequestError(
                f"the masks of {names[path].name} are ambiguous: there is also {several}",
                field="masks",
                hint="give the masks of each image its name",
            )
        if masks:
            users[masks[0]] = names[path].name
            found[names[path].uri] = uris[PurePosixPath(masks[0])]
    return found


def _free(name: str, taken: set[str]) -> str:
    """Reserve and return a name that is free, ignoring case, with a number if necessary."""
    free, number = name, 1
    while free.casefold() in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free.casefold())
    return free

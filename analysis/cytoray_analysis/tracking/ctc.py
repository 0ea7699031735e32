"""Folders in the layout of the Cell Tracking Challenge (Maška et al., Nat Methods 20, 1010, 2023).

``NN/tTTT.tif`` holds the frames, ``NN_GT/TRA/man_trackTTT.tif`` a marker or a mask of each cell with ``man_track.txt``,
``NN_GT/SEG/man_segTTT.tif`` outlines in some frames (of volumes: ``man_seg_TTT_ZZZ.tif``, one plane each),
``NN_ST/SEG`` outlines made by machines in all, ``NN_RES/maskTTT.tif`` with ``res_track.txt`` a result. Frames are
numbered from 0, with three digits or four by the rules, and read with any number of them. Folders of frames with other
names are also read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import CytorayError, DatasetError, ImageError, MissingFileError
from cytoray_analysis.files import write_whole
from cytoray_analysis.images import Image, image_from_array, read_image, read_labels, write_labels
from cytoray_analysis.images.axes import how_to_choose
from cytoray_analysis.images.choose import choose
from cytoray_analysis.images.names import image_stem, is_image_name
from cytoray_analysis.images.writer import check_labels, write_numbers
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_analysis.tracking.frame_names import FRAMES, MASKS, known_frames, order_frames
from cytoray_analysis.tracking.frames import FrameStack
from cytoray_analysis.tracking.lineage import Integers, Lineage, check_lineage, check_tracks
from cytoray_analysis.tracking.objects import measure

LARGEST_TRACK = 65_535
_PLANE = re.compile(r"man_seg_(\d+)_(\d+)", re.IGNORECASE)
_WHOLE = re.compile(r"man_seg(\d+)", re.IGNORECASE)


def read_movie(folder: str | Path, selection: Selection = EVERYTHING, *, alone: bool = False) -> Image:
    """Open the frames of a folder as one image, in the order of the numbers in their names.

    They are called ``tTTT.tif``, or otherwise: see :func:`cytoray_analysis.tracking.frame_names.order_frames`.

    Parameters
    ----------
    selection
        What of them is asked about: a frame is one of the files, all else is chosen in each of them.
    alone
        Whether the files are untrusted and may not refer to others; see :func:`cytoray_analysis.images.read_image`.

    Returns
    -------
    Image
        Axes TYX or TZYX; a frame is decoded when it is read.

    Raises
    ------
    MissingFileError
        There is no such folder, or no frame in it.
    DatasetError
        A frame is missing in the numbering, a file is not a frame, or frames differ in shape (detected on reading).
    """
    in_file = selection.without("frame")
    movie = _open(Path(folder), FRAMES, lambda path: read_image(path, selection=in_file, alone=alone), "frames")
    return choose(movie, Selection(frame=selection.frame))


def read_masks(folder: str | Path, *, alone: bool = False) -> Image:
    """Open the masks of a folder (``man_trackTTT.tif``, ``man_segTTT.tif``, ``maskTTT.tif``, or others) as one image.

    Raises as :func:`read_movie` does, which also says what `alone` is, and :class:`ImageError` when a mask holds no
    labels.
    """

    def read(path: Path) -> Image:
        labels = check_labels(read_image(path, labels=True, alone=alone))
        return image_from_array(labels, "ZYX"[-labels.ndim :], source=str(path))

    return _open(Path(folder), MASKS, read, "masks")


def read_truth(folder: str | Path) -> Lineage:
    """Read the truth of a movie.

    Parameters
    ----------
    folder
        ``NN_GT`` with ``TRA``. Outlines come from its ``SEG``, or else from ``NN_ST/SEG`` next to it.

    Returns
    -------
    Lineage
        Its masks are those of ``TRA``, decoded frame by frame; ``label`` equals ``track``.

    Raises
    ------
    MissingFileError
        A folder or ``man_track.txt`` is missing.
    DatasetError
        A frame is missing, or ``man_track.txt`` is no valid lineage or does not fit the masks.
    """
    root = Path(folder)
    lineage = read_lineage(root / "TRA", "man_track.txt")
    outlines = _outlines(root / "SEG", lineage.shape)
    silver = root.with_name(root.name.removesuffix("_GT") + "_ST") / "SEG"
    return Lineage(**{**vars(lineage), "outlines": outlines or _outlines(silver, lineage.shape)})


def read_lineage(folder: str | Path, tracks: str = "res_track.txt") -> Lineage:
    """Read masks with track numbers, and their text file of tracks."""
    root = Path(folder)
    masks = read_masks(root)
    table = read_tracks(root / tracks)
    stack: FrameStack = masks.data
    found = [measure(stack.read(index)) for index in range(len(stack))]
    counts = [len(objects.labels) for objects in found]
    axes = len(stack.shape) - 1
    track = np.concatenate([objects.labels for objects in found])
    frame = np.repeat(np.arange(len(found)), counts)
    order = np.lexsort((track, frame))
    lineage = Lineage(
        frames=len(stack),
        shape=stack.shape[1:],
        track_id=table[:, 0],
        begin=table[:, 1],
        end=table[:, 2],
        parent=table[:, 3],
        frame=frame[order],
        track=track[order],
        label=track[order],
        centroid=np.concatenate([objects.centroid for objects in found]).reshape(-1, axes)[order],
        box=np.concatenate([objects.box for objects in found]).reshape(-1, 2, axes)[order],
        masks=stack,
    )
    check_lineage(lineage, source=str(root / tracks), gap=None, daughters=len(table))
    return lineage


def read_tracks(path: str | Path) -> Integers:
    """Read a text file of tracks.

    Returns
    -------
    numpy.ndarray
        (K, 4) int64: number, first frame, last frame, parent or 0; sorted by number.

    Raises
    ------
    MissingFileError
        There is no such file.
    DatasetError
        A line does not hold four integers, or the tracks make no valid lineage.
    """
    place = Path(path)
    if not place.is_file():
        raise MissingFileError(
            f"expected the file {place}, found none", hint="the text file of tracks must be in the folder of the masks"
        )
    rows = []
    for number, line in enumerate(place.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 4 or not all(re.fullmatch(r"\d{1,15}", word) for word in words):
            raise DatasetError(
                f"{place}, line {number}: expected four integers (track, begin, end, parent), got {line[:60]!r}",
                field=str(place),
                hint="one track a line, separated by spaces, parent 0 where there is none",
            )
        rows.append([int(word) for word in words])
    table = np.array(sorted(rows), dtype=np.int64).reshape(-1, 4)
    check_tracks(table, source=str(place), gap=None, daughters=max(len(table), 2))
    return table


def write_results(folder: str | Path, lineage: Lineage) -> None:
    """Write ``maskTTT.tif`` (uint16, every pixel its track) and ``res_track.txt``.

    Tracks whose numbers do not fit 16 bits are renumbered from 1 in the same order; their original numbers are written
    as ``res_track.numbers.csv``.

    Raises
    ------
    ImageError
        There are more tracks than 16 bits can number.
    DatasetError
        The lineage has no masks.
    """
    root = Path(folder)
    if len(lineage.track_id) > LARGEST_TRACK:
        raise ImageError(
            f"expected at most {LARGEST_TRACK} tracks for this layout, got {len(lineage.track_id)}",
            field="track_id",
            hint="write the lineage as GEFF instead, or link the movie in parts",
        )
    root.mkdir(parents=True, exist_ok=True)
    if int(lineage.track_id.max(initial=0)) > LARGEST_TRACK:
        write_numbers(root / "res_track.numbers.csv", lineage.track_id)
        lineage = _renumbered(lineage)
    tracked = lineage.tracked
    digits = max(3, len(str(lineage.frames - 1)))
    for index in range(lineage.frames):
        write_labels(root / f"mask{index:0{digits}d}.tif", tracked.read(index).astype(np.uint16))
    write_whole(root / "res_track.txt", "".join(f"{a} {b} {c} {d}\n" for a, b, c, d in lineage.table.tolist()))


def _renumbered(lineage: Lineage) -> Lineage:
    """Return the lineage with its tracks numbered from 1 in the same order."""

    def rank(tracks: Integers) -> Integers:
        return np.asarray(np.where(tracks > 0, np.searchsorted(lineage.track_id, tracks) + 1, 0))

    return replace(lineage, track_id=rank(lineage.track_id), parent=rank(lineage.parent), track=rank(lineage.track))


def _open(folder: Path, kinds: Sequence[str], read: Callable[[Path], Image], what: str) -> Image:
    paths = _numbered(folder, kinds, what)
    first = read(paths[0])
    if first.axes not in ("YX", "ZYX"):
        raise DatasetError(
            f"{paths[0]}: expected a frame with axes YX or ZYX, got {first.axes} of shape {first.shape}",
            field="axes",
            hint=f"store one grey image per frame, or choose with {how_to_choose(first.axes) or '--input-axes'}",
        )

    def frame(index: int) -> NDArray[Any]:
        image = read(paths[index])
        if image.shape != first.shape:
            raise DatasetError(
                f"{paths[index]}: expected a frame of shape {first.shape} as {paths[0].name} has, got {image.shape}",
                field="shape",
                hint="all frames of a movie must have the same shape; crop or pad them",
            )
        return image.read()

    stack = FrameStack(frame, (len(paths), *first.shape), first.dtype)
    return replace(first, data=stack, axes="T" + first.axes, source=str(folder), guessed_axes=False)


def movie_files(folder: str | Path, *, masks: bool = False) -> list[Path]:
    """Return the files of a movie's frames, or of its masks, in the order in which they are read.

    Raises as :func:`read_movie` does for names and numbers.
    """
    return _numbered(Path(folder), MASKS if masks else FRAMES, "masks" if masks else "frames")


def _numbered(folder: Path, kinds: Sequence[str], what: str) -> list[Path]:
    """Return the files of a folder that are numbered frames, in order."""
    if not folder.is_dir():
        raise MissingFileError(f"expected a folder at {folder}, found none", hint=f"use a folder of {what}")
    found = order_frames(_file_names(folder), source=str(folder), what=what, kinds=kinds)
    if not found.names:
        names = " or ".join(f"{kind}000.tif" for kind in kinds)
        raise MissingFileError(f"expected {what} in {folder}, such as {names}, found none", hint="check the path")
    return [folder / name for name in found.names]


def _file_names(folder: Path) -> list[str]:
    """Return the names of the files in a folder, and of the OME-Zarrs, which are images."""
    return [path.name for path in folder.iterdir() if not path.is_dir() or path.suffix.lower() == ".zarr"]


def holds_frames(folder: str | Path, *, spatial_axes: str = "YX") -> bool:
    """Whether a folder holds one movie as single frames, and not images or movies to be read one by one.

    Parameters
    ----------
    folder
        Any path.
    spatial_axes
        Of a frame of the model that is asked. Frames called ``t000.tif`` are frames whatever their axes.

    Returns
    -------
    bool
        Files called ``t000.tif`` lie in it, or at least two images of which the first is one frame. That they can be
        put into order is not looked at: :func:`read_movie` says what keeps them from it.
    """
    return _holds(Path(folder), FRAMES, spatial_axes)


def holds_masks(folder: str | Path, *, spatial_axes: str = "YX") -> bool:
    """Whether a folder holds the masks of a movie's frames: ``mask000.tif``, ``man_track000.tif``, or as the frames."""
    return _holds(Path(folder), MASKS, spatial_axes)


def _holds(folder: Path, kinds: Sequence[str], spatial_axes: str) -> bool:
    if not folder.is_dir():
        return False
    names = _file_names(folder)
    images = sorted(name for name in names if is_image_name(name))
    if known_frames(names, kinds):
        return True
    return len(images) > 1 and is_one_frame(folder / images[0], spatial_axes)


def is_one_frame(path: str | Path, spatial_axes: str = "YX", *, alone: bool = False) -> bool:
    """Whether a file holds one frame, so that a folder of such files is a movie; False where it cannot be read.

    Parameters
    ----------
    alone
        Whether the file is untrusted; see :func:`cytoray_analysis.images.read_image`.
    """
    try:
        image = read_image(path, alone=alone)
    except CytorayError:  # the error is raised when it is read
        return False
    if image.guessed_axes and "C" in image.axes:  # four axes that the file does not name: a movie of stacks
        return False
    return image.axes.replace("C", "") == spatial_axes


def _outlines(folder: Path, shape: tuple[int, ...]) -> dict[int, Callable[[], NDArray[Any]]]:
    """Return readers of outlines by frame; of volumes annotated in some planes, the others are −1."""
    if not folder.is_dir():
        return {}
    planes: dict[int, dict[int, Path]] = {}
    readers: dict[int, Callable[[], NDArray[Any]]] = {}
    for name in sorted(_file_names(folder)):
        stem = image_stem(name)
        if not is_image_name(name):
            continue
        if plane := _PLANE.fullmatch(stem):
            planes.setdefault(int(plane[1]), {})[int(plane[2])] = folder / name
        elif whole := _WHOLE.fullmatch(stem):
            readers[int(whole[1])] = partial(read_labels, folder / name)
        else:
            raise DatasetError(
                f"{folder}: expected outlines such as man_seg000.tif or man_seg_000_000.tif, got {name}",
                field="frames",
                hint="rename it, or move files without outlines elsewhere",
            )

    def volume(paths: dict[int, Path]) -> NDArray[np.int64]:
        labels = np.full(shape, -1, np.int64)
        for index, path in paths.items():
            labels[index] = read_labels(path)
        return labels

    return readers | {frame: partial(volume, paths) for frame, paths in planes.items()}

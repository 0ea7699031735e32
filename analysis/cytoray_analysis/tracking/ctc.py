"""Folders in the layout of the Cell Tracking Challenge (Maška et al., Nat Methods 20, 1010, 2023).

``NN/tTTT.tif`` holds the frames, ``NN_GT/TRA/man_trackTTT.tif`` a marker or a mask of each cell with ``man_track.txt``,
``NN_GT/SEG/man_segTTT.tif`` outlines in some frames (of volumes: ``man_seg_TTT_ZZZ.tif``, one plane each),
``NN_ST/SEG`` outlines made by machines in all, ``NN_RES/maskTTT.tif`` with ``res_track.txt`` a result. Frames are
numbered from 0 with three digits or four.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import DatasetError, ImageError, MissingFileError
from cytoray_analysis.files import write_whole
from cytoray_analysis.images import Image, image_from_array, read_image, read_labels, write_labels
from cytoray_analysis.tracking.frames import FrameStack
from cytoray_analysis.tracking.lineage import Integers, Lineage, check_lineage, check_tracks
from cytoray_analysis.tracking.objects import measure

LARGEST_TRACK = 65_535
_MASKS = ("man_track", "man_seg", "mask")
_PLANE = re.compile(r"man_seg_(\d{3,4})_(\d{3,4})\.tiff?")


def read_movie(folder: str | Path) -> Image:
    """Open the frames ``tTTT.tif`` of a folder as one image.

    Returns
    -------
    Image
        Axes TYX or TZYX; a frame is decoded when it is read.

    Raises
    ------
    MissingFileError
        There is no such folder, or no frame in it.
    DatasetError
        A frame is missing in the numbering, or frames differ in shape (found when they are read).
    """
    return _open(Path(folder), ("t",), lambda path: read_image(path), "frames")


def read_masks(folder: str | Path) -> Image:
    """Open the masks of a folder (``man_trackTTT.tif``, ``man_segTTT.tif`` or ``maskTTT.tif``) as one label image.

    Raises as :func:`read_movie` does, and :class:`ImageError` when a mask holds no labels.
    """

    def read(path: Path) -> Image:
        labels = read_labels(path)
        return image_from_array(labels, "ZYX"[-labels.ndim :], source=str(path))

    return _open(Path(folder), _MASKS, read, "masks")


def read_truth(folder: str | Path) -> Lineage:
    """Read the truth of a movie.

    Parameters
    ----------
    folder
        ``NN_GT`` with ``TRA``. Outlines come from its ``SEG``, or else from ``NN_ST/SEG`` beside it.

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
    """Read masks that carry track numbers, and the text file of tracks beside them."""
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
        raise MissingFileError(f"{place} does not exist", hint="the text file of tracks lies beside the masks")
    rows = []
    for number, line in enumerate(place.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 4 or not all(re.fullmatch(r"\d{1,9}", word) for word in words):
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

    Raises
    ------
    ImageError
        A track's number does not fit 16 bits.
    DatasetError
        The lineage has no masks.
    """
    root = Path(folder)
    largest = int(lineage.track_id.max(initial=0))
    if largest > LARGEST_TRACK:
        raise ImageError(
            f"the layout stores tracks up to number {LARGEST_TRACK}, got {largest}",
            field="track_id",
            hint="write the lineage as GEFF instead, or link the movie in parts",
        )
    tracked = lineage.tracked
    root.mkdir(parents=True, exist_ok=True)
    digits = max(3, len(str(lineage.frames - 1)))
    for index in range(lineage.frames):
        write_labels(root / f"mask{index:0{digits}d}.tif", tracked.read(index).astype(np.uint16))
    write_whole(root / "res_track.txt", "".join(f"{a} {b} {c} {d}\n" for a, b, c, d in lineage.table.tolist()))


def _open(folder: Path, prefixes: Sequence[str], read: Callable[[Path], Image], what: str) -> Image:
    paths = _numbered(folder, prefixes, what)
    first = read(paths[0])
    if first.axes not in ("YX", "ZYX"):
        raise DatasetError(
            f"{paths[0]}: a frame has axes YX or ZYX, got {first.axes} of shape {first.shape}",
            field="axes",
            hint="store one grey image per frame; choose a channel",
        )

    def frame(index: int) -> NDArray[Any]:
        image = read(paths[index])
        if image.shape != first.shape:
            raise DatasetError(
                f"{paths[index]}: expected a frame of shape {first.shape} as {paths[0].name} has, got {image.shape}",
                field="shape",
                hint="all frames of a movie have one shape; crop or pad them",
            )
        return image.read()

    stack = FrameStack(frame, (len(paths), *first.shape), first.dtype)
    return Image(stack, "T" + first.axes, first.channels, first.pixel_size, str(folder))


def _numbered(folder: Path, prefixes: Sequence[str], what: str) -> list[Path]:
    """Return the files of a folder that are numbered frames, in order, from 0 without a gap."""
    if not folder.is_dir():
        raise MissingFileError(f"{folder} does not exist or is no folder", hint=f"expected a folder of {what}")
    pattern = re.compile(rf"({'|'.join(prefixes)})(\d{{3,4}})\.tiff?")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        index = int(match[2])
        if index in found:
            raise DatasetError(
                f"{folder}: frame {index} is there twice, as {found[index].name} and {path.name}",
                field="frames",
                hint="keep one of them",
            )
        found[index] = path
    if not found:
        names = " or ".join(f"{prefix}000.tif" for prefix in prefixes)
        raise MissingFileError(f"{folder} holds no {what}: expected files such as {names}", hint="check the path")
    missing = sorted(set(range(max(found) + 1)) - set(found))
    if missing:
        some = ", ".join(str(index) for index in missing[:5]) + (", …" if len(missing) > 5 else "")
        raise DatasetError(
            f"{folder}: expected {what} 0 to {max(found)}, missing {some}",
            field="frames",
            hint="add the missing frames, or renumber the others from 0 (and their tracks with them)",
        )
    return [found[index] for index in range(len(found))]


def _outlines(folder: Path, shape: tuple[int, ...]) -> dict[int, Callable[[], NDArray[Any]]]:
    """Return readers of outlines by frame; of volumes annotated in some planes, the others are −1."""
    if not folder.is_dir():
        return {}
    planes: dict[int, dict[int, Path]] = {}
    readers: dict[int, Callable[[], NDArray[Any]]] = {}
    for path in sorted(folder.iterdir()):
        if plane := _PLANE.fullmatch(path.name):
            planes.setdefault(int(plane[1]), {})[int(plane[2])] = path
        elif whole := re.fullmatch(r"man_seg(\d{3,4})\.tiff?", path.name):
            readers[int(whole[1])] = partial(read_labels, path)

    def volume(paths: dict[int, Path]) -> NDArray[np.int32]:
        labels = np.full(shape, -1, np.int32)
        for index, path in paths.items():
            labels[index] = read_labels(path)
        return labels

    return readers | {frame: partial(volume, paths) for frame, paths in planes.items()}

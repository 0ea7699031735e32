"""Checks of movies and their lineages, in the layout of the Cell Tracking Challenge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cytoray_analysis.errors import DatasetError, InputError, MissingFileError, UnreadableImageError
from cytoray_analysis.images import Image, require_finite
from cytoray_analysis.mask_fit import MaskFit, measure_fit
from cytoray_analysis.numbering import dense_numbers
from cytoray_analysis.tracking.ctc import movie_files, read_masks, read_movie, read_tracks
from cytoray_analysis.tracking.frames import frame_of
from cytoray_analysis.tracking.lineage import Integers
from cytoray_services.datasets.check.across import drawn_numbers
from cytoray_services.datasets.check.copies import detail_of
from cytoray_services.datasets.check.files import damaged, hash_pixels, size_of
from cytoray_services.datasets.check.findings import Checked, Facts, Finding, name_in, shorten
from cytoray_services.datasets.check.frames import examine_outlines, find_unlike_frames, find_unlike_masks
from cytoray_services.datasets.check.images import warned
from cytoray_services.datasets.check.labels import scattered_ids
from cytoray_services.datasets.dataset import Dataset, Item

FEWEST_DIVISIONS = 10
"""Fewer divisions than this in training give a note."""
_MARKERS, _OUTLINES, _TABLE = "TRA", "SEG", "man_track.txt"
_CODES = {"axes": "wrong-axes", "shape": "size-mismatch", "frames": "missing-frame"}


def examine_movie(item: Item, dataset: Dataset) -> Facts:
    """Return the facts of a movie and its lineage, with one frame in memory at a time."""
    name = name_in(dataset, item.image)
    try:
        movie = read_movie(item.image, dataset.selection)
    except InputError as error:
        return Facts((_explain(error, name, "unreadable"),))
    facts = _examine_frames(movie, name)
    if facts.digest:
        facts = replace(facts, findings=(*facts.findings, *find_unlike_frames(movie, item.image, dataset)))
    facts = replace(facts, findings=(*warned(movie, name), *facts.findings))
    if item.truth is None:
        problem = Finding("error", name, "it has no truth", "Add its folder of tracks.", "missing-file")
        return replace(facts, findings=(*facts.findings, problem))
    lineage = _examine_lineage(item.truth, movie, dataset)
    return replace(
        facts,
        findings=(*facts.findings, *lineage.findings),
        tracks=lineage.tracks,
        divisions=lineage.divisions,
        fit=lineage.fit,
    )


def _examine_frames(movie: Image, name: str) -> Facts:
    axes = movie.axes.replace("T", "")
    digests, blank = [], []
    for index in range(movie.size("T")):
        try:
            pixels = frame_of(movie, index)
            require_finite(pixels, f"{name}, frame {index}")
        except InputError as error:
            return Facts((_explain(error, name, "not-finite"),), axes)
        digests.append(hash_pixels(axes, [pixels]))
        if pixels.min() == pixels.max():
            blank.append(index)
    findings = []
    if blank:
        problem = f"every pixel has the same value in {len(blank)} of {len(digests)} frames ({shorten(blank)})"
        remedy = "Remove these frames and renumber the others, or split the movie there."
        findings.append(Finding("warning", name, problem, remedy, "constant-image"))
    return Facts(
        tuple(findings),
        axes,
        1,
        movie.spatial_shape,
        hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest(),
        detail=detail_of(movie),
    )


def _examine_lineage(folder: Path, movie: Image, dataset: Dataset) -> Facts:
    """Return the facts of a lineage, and whether its masks fit the movie and the tracks."""
    place = f"{name_in(dataset, folder)}/{_MARKERS}"
    silver = folder.with_name(f"{folder.name.removesuffix('_GT')}_ST")
    outlines: list[Finding] = []
    for one in (folder, silver):
        outlines += examine_outlines(one / _OUTLINES, movie.spatial_shape, dataset)
    try:
        table = read_tracks(folder / _MARKERS / _TABLE)
    except MissingFileError:
        remedy = "Store the truth as NN_GT/TRA/man_track.txt next to NN, as in the Cell Tracking Challenge."
        return Facts((Finding("error", f"{place}/{_TABLE}", "the file does not exist", remedy, "missing-file"),))
    except InputError as error:
        return Facts((Finding("error", f"{place}/{_TABLE}", error.message, error.hint or "", "invalid-lineage"),))
    _, daughters = np.unique(table[table[:, 3] > 0, 3], return_counts=True)
    divisions = int(np.count_nonzero(daughters > 1))
    fit = None
    try:
        masks = read_masks(folder / _MARKERS)
        found = [*_compare_sizes(masks, movie, place), *_compare_objects(masks, table, place, _mask_names(folder))]
        if not found:
            found = [*_find_joined(masks, place), *find_unlike_masks(masks, folder / _MARKERS, dataset)]
            fit = _fit_of(masks, movie)
    except InputError as error:
        found = [_explain(error, place, "invalid-mask")]
    return Facts((*found, *outlines), tracks=len(table), divisions=divisions, fit=fit)


def _find_joined(masks: Image, place: str) -> Iterator[Finding]:
    """Find masks with one number for cells far apart, which would be one track."""
    joined: dict[int, int] = {}
    numbers: set[int] = set()
    for frame in range(masks.size("T")):
        dense, names = dense_numbers(frame_of(masks, frame))
        numbers.update(int(name) for name in names[np.unique(dense)] if name)
        for number in scattered_ids(dense):
            joined.setdefault(int(names[number]), frame)
    if not joined:
        return
    number, frame = next(iter(joined.items()))
    many = f"{len(joined)} numbers are used" if len(joined) > 1 else f"the number {number} is used"
    problem = f"{many} for pieces far apart, such as {number} in frame {frame}: they count as one cell, one track"
    remedy = "Give each cell its own number, the same in every frame."
    # A single number in the whole movie is a mask of foreground, without tracks to learn.
    yield Finding("error" if len(numbers) == 1 else "warning", place, problem, remedy, "fragmented-ids")


def _fit_of(masks: Image, movie: Image) -> MaskFit | None:
    middle = masks.size("T") // 2
    try:
        pixels, labels = frame_of(movie, middle), frame_of(masks, middle)
    except InputError:  # another check has reported the unreadable frame
        return None
    return None if pixels.min() == pixels.max() else measure_fit(pixels[np.newaxis], labels)


def _compare_sizes(masks: Image, movie: Image, place: str) -> Iterator[Finding]:
    if masks.spatial_shape != movie.spatial_shape:
        problem = f"its masks are {size_of(masks.spatial_shape)}, the frames {size_of(movie.spatial_shape)}"
        yield Finding("error", place, problem, "Crop or resample both together.", "size-mismatch")
    if masks.size("T") != movie.size("T"):
        problem = f"it has {masks.size('T')} masks for {movie.size('T')} frames"
        remedy = "Add a mask for every frame, empty without cells, or crop the movie to the frames with masks."
        yield Finding("error", place, problem, remedy, "missing-frame")


def _compare_objects(masks: Image, table: Integers, place: str, names: Sequence[str]) -> Iterator[Finding]:
    """Find objects without a track in their frame, and tracks without an object in one of their frames."""
    unlisted, absent = [], []
    for frame in range(masks.size("T")):
        present = np.setdiff1d(np.unique(frame_of(masks, frame)), 0)
        listed = table[(table[:, 1] <= frame) & (frame <= table[:, 2]), 0]
        unlisted += [f"{track} in {names[frame]}" for track in np.setdiff1d(present, listed)]
        absent += [f"{track} in {names[frame]}" for track in np.setdiff1d(listed, present)]
    if unlisted:
        problem = f"{len(unlisted)} objects of the masks are not in {_TABLE}: {shorten(unlisted)}"
        remedy = "List each track with its first and last frame in the masks."
        yield Finding("error", place, problem, remedy, "unlisted-object")
    if absent:
        problem = f"{len(absent)} objects of {_TABLE} are not in the masks: {shorten(absent)}"
        remedy = "Draw the missing objects, or end the track before the gap and begin a daughter after it."
        yield Finding("error", place, problem, remedy, "missing-object")


def _mask_names(folder: Path) -> list[str]:
    return [f"{_MARKERS}/{path.name}" for path in movie_files(folder / _MARKERS, masks=True)]


def _explain(error: InputError, name: str, otherwise: str) -> Finding:
    if isinstance(error, UnreadableImageError):
        return damaged(name, error)
    code = otherwise
    if isinstance(error, MissingFileError):
        code = "missing-file"
    elif isinstance(error, DatasetError):
        code = _CODES.get(error.field or "", "missing-frame")
    return Finding("error", name, error.message, error.hint or "", code)


def note_drawn_split(checked: Checked) -> Iterator[Finding]:
    """Report that no split is given, as is usual for movies."""
    if checked.dataset.derived_split:
        problem = f"no split is given, so whole movies were drawn {drawn_numbers(checked)}"
        remedy = "Set data.validation in the recipe to a folder of other movies, or put them into train/ and val/."
        yield Finding("note", ".", problem, remedy, "no-split-column")


def note_divisions(checked: Checked) -> Iterator[Finding]:
    """Report a small number of divisions."""
    facts = [facts for facts in checked.facts.values() if facts.tracks]
    divisions, tracks = sum(one.divisions for one in facts), sum(one.tracks for one in facts)
    if facts and divisions < FEWEST_DIVISIONS:
        problem = f"there are {divisions} divisions among {tracks} tracks, fewer than {FEWEST_DIVISIONS}"
        remedy = "Add movies with divisions; a linker learns little from so few, and division F1 depends on each."
        yield Finding("note", ".", problem, remedy, "few-divisions")

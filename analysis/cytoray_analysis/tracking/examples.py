"""Candidates of a movie with the truth about each: what a linker is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import Image
from cytoray_analysis.numbering import dense_numbers
from cytoray_analysis.tracking.candidates import Candidates, find_candidates
from cytoray_analysis.tracking.frames import as_movie, frame_of
from cytoray_analysis.tracking.lineage import Integers, Lineage
from cytoray_analysis.tracking.linking import ruler_of
from cytoray_analysis.tracking.objects import Objects

UNKNOWN = -1


def training_examples(
    movie: Image, masks: Image, lineage: Lineage, *, gap: int = 1, dropped: float = 0.0, seed: int = 0
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Yield the candidates of each frame but the first, with their truth.

    Parameters
    ----------
    movie, masks
        Axes TYX or TZYX; one frame is held at a time, and the objects of the few before.
    lineage
        The truth, with masks or markers. An object is a truth's cell when it covers more than half of its marker,
        as the Cell Tracking Challenge matches them.
    gap
        Most frames that a link may skip.
    dropped
        Share of the objects that are taken out by chance, 0 to 1, so that gaps, appearing and disappearing are
        learnt although the masks miss nothing.
    seed
        Of that chance.

    Yields
    ------
    features
        (F, N) float32.
    truth
        (2, N) int64: whether a link is one; whether a division is one. 1 yes, 0 no, −1 unknown or not asked.

    Raises
    ------
    DatasetError
        Movie, masks and lineage differ in their frames, or the lineage has no masks.
    """
    movie, masks = as_movie(movie), as_movie(masks)
    if not movie.shape == masks.shape == (lineage.frames, *lineage.shape):
        raise DatasetError(
            f"movie, masks and truth must have the same shape, got {movie.shape} ({movie.source}), {masks.shape} "
            f"({masks.source}) and {(lineage.frames, *lineage.shape)}",
            field="masks",
            hint="they must show the same frames",
        )
    ruler = ruler_of(movie)
    truth = lineage.tracked
    before: list[tuple[Objects, Integers]] = []
    for index in range(lineage.frames):
        mask = frame_of(masks, index)
        if dropped:
            mask = _drop(mask, dropped, np.random.default_rng([seed, index]))
        objects = ruler.measure(mask, frame_of(movie, index))
        tracks = match_tracks(objects, truth.read(index))
        if before:
            candidates = find_candidates(index, [earlier for earlier, _ in before], objects)
            yield candidates.features, candidate_truth(candidates, [known for _, known in before], tracks, lineage)
        before = [(objects, tracks), *before][: gap + 1]


def match_tracks(objects: Objects, truth: NDArray[Any]) -> Integers:
    """Return the track of each object (n,): the one whose marker it covers by more than half.

    0 where there is none, −1 where there are several.
    """
    numbers = objects.numbers.ravel()
    dense, names = dense_numbers(truth.ravel())
    markers = dense.astype(np.int64, copy=False)
    area = np.bincount(markers)
    both = np.flatnonzero((numbers > 0) & (markers > 0))
    key, shared = np.unique(numbers[both] * np.int64(len(area)) + markers[both], return_counts=True)
    owner, marker = key // len(area) - 1, key % len(area)
    covered = 2 * shared > area[marker]
    tracks = np.zeros(len(objects), np.int64)
    tracks[owner[covered]] = names[marker[covered]]
    found = np.bincount(owner[covered], minlength=len(objects))
    tracks[found > 1] = UNKNOWN
    return tracks


def candidate_truth(candidates: Candidates, before: list[Integers], tracks: Integers, lineage: Lineage) -> Integers:
    """Return (2, N) int64 what is true of candidates, given the tracks of their objects; see the module's truth."""
    source, target = np.empty(len(candidates), np.int64), tracks[candidates.target]
    seen_between = np.zeros(len(candidates), bool)
    for gap, known in enumerate(before):
        own = candidates.gap == gap
        source[own] = known[candidates.source[own]]
        for nearer in before[:gap]:
            seen_between[own] |= np.isin(source[own], nearer) | np.isin(target[own], nearer)
    sister = np.where(candidates.sister >= 0, tracks[candidates.sister], 0)
    divides = candidates.sister >= 0
    truth = np.full((2, len(candidates)), UNKNOWN, np.int64)
    asked = (source > 0) & (target > 0) & ~divides
    same = source == target
    truth[0, asked] = ((same | _descends(lineage, source, target)) & ~seen_between)[asked]
    asked = (source > 0) & (target > 0) & (sister > 0) & divides
    truth[1, asked] = (_descends(lineage, source, target) & _descends(lineage, source, sister))[asked]
    return truth


def _descends(lineage: Lineage, source: Integers, target: Integers) -> NDArray[np.bool_]:
    if not len(lineage.track_id):
        return np.zeros(len(target), bool)
    place = np.searchsorted(lineage.track_id, target).clip(max=len(lineage.track_id) - 1)
    return np.asarray((target > 0) & (lineage.parent[place] == source))


def _drop(mask: NDArray[Any], share: float, rng: np.random.Generator) -> NDArray[Any]:
    labels = np.unique(mask)
    labels = labels[labels > 0]
    lost = labels[rng.random(len(labels)) < share]
    return np.where(np.isin(mask, lost), 0, mask)

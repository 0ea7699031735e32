"""Which objects may be the same cell, or mother and daughters, in terms that no microscope changes.

For every object a few near objects of a later frame are candidates: each alone (a link), and every two of the next
frame together (a division). Each candidate is described by numbers without units: lengths relative to the typical
radius of an object, to the typical distance between neighbours and to the typical motion; sizes and intensities
relative to the other objects of the frame. So a linker that was trained on one movie serves another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cytoray_analysis.tracking.objects import Objects, shared_pixels

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NEAREST = 5
PAIR_FEATURES = (
    "distance in radii",
    "distance in gaps",
    "distance in motions",
    "distance from the drift in radii",
    "distance from the drift in gaps",
    "overlap",
    "overlap of the source",
    "overlap of the target",
    "growth",
    "change of size",
    "change of intensity",
    "change of intensity rank",
    "change of texture",
    "change of surroundings",
    "change of elongation",
    "rank among targets",
    "rank among sources",
    "distance over that of the next source",
    "distance over that of the next target",
    "overlap of the target with another source",
    "overlap of the source with another target",
)
OBJECT_FEATURES = ("size", "intensity", "texture", "surroundings", "elongation", "border", "crowding")
FRAME_FEATURES = (
    "gap",
    "division",
    "distance between neighbours",
    "motion",
    "distance of the source to what was seen between",
    "distance of the target to what was seen between",
)
DIVISION_FEATURES = (
    "growth",
    "asymmetry of size",
    "asymmetry of intensity",
    "asymmetry of elongation",
    "opposition",
    "distance of the midpoint in radii",
    "distance of the midpoint in gaps",
    "distance of the daughters in radii",
    "distance of the daughters in gaps",
    "angle to the source",
    "angle between the daughters",
    "intensity against the source",
)


def feature_names() -> tuple[str, ...]:
    """Return the names of the F features of a candidate, in order."""
    names = [f"{name} (nearer target)" for name in PAIR_FEATURES]
    names += [f"{name} (farther target)" for name in PAIR_FEATURES]
    names += [f"{name} (source)" for name in OBJECT_FEATURES]
    names += [f"{name} (nearer target)" for name in OBJECT_FEATURES]
    names += [f"{name} (farther target)" for name in OBJECT_FEATURES]
    return (*names, *FRAME_FEATURES, *(f"{name} (division)" for name in DIVISION_FEATURES))


FEATURES = len(feature_names())


@dataclass(frozen=True, eq=False)
class Candidates:
    """N ways to explain objects of a frame by objects of earlier ones.

    Parameters
    ----------
    frame
        Frame of the targets.
    gap
        (N,) frames skipped: the sources lie in frame ``frame - 1 - gap``.
    source, target
        (N,) indices of objects in their frames.
    sister
        (N,) index of the second target of a division, −1 for a link.
    features
        (F, N) float32, named by :func:`feature_names`.
    """

    frame: int
    gap: Integers
    source: Integers
    target: Integers
    sister: Integers
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.source)

    def without_features(self) -> Candidates:
        """Return the same candidates without their description, which takes ten times the memory of the rest."""
        return replace(self, features=np.empty((0, len(self)), np.float32))


def find_candidates(frame: int, sources: list[Objects], targets: Objects) -> Candidates:
    """List and describe the candidates for the objects of a frame.

    Parameters
    ----------
    frame
        Frame of the targets.
    sources
        Objects of the frames before, the nearest first: entry `g` for links that skip `g` frames.
    targets
        Objects of the frame.
    """
    parts = [_between(frame, objects, targets, sources[:gap]) for gap, objects in enumerate(sources)]
    gap, source, target, sister = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("gap", "source", "target", "sister")
    )
    return Candidates(frame, gap, source, target, sister, np.concatenate([part.features for part in parts], axis=1))


def _between(frame: int, first: Objects, second: Objects, skipped: list[Objects]) -> Candidates:
    gap = len(skipped)
    radius, spacing, drift, motion = _scales(first, second)
    nearest = NEAREST if gap == 0 else 2
    source, target, distance = _near(first, second, nearest, 2.0 * (spacing + radius))
    shared = shared_pixels(first, second, source, target).astype(np.float64)
    pairs = _describe_pairs(first, second, source, target, distance, shared, (radius, spacing, motion), drift)
    one, two = _couples(source) if gap == 0 else (np.zeros(0, np.int64), np.zeros(0, np.int64))
    links, couples = len(source), len(one)
    early, late = describe_objects(first, radius), describe_objects(second, radius)
    frames = np.zeros((links + couples, len(FRAME_FEATURES)))
    frames[:, 0], frames[links:, 1] = gap, 1.0
    frames[:, 2:4] = np.log(spacing / radius), np.log(motion / radius)
    frames[:links, 4] = _nearest_of(skipped, first, radius)[source]
    frames[:links, 5] = _nearest_of(skipped, second, radius)[target]
    blank = np.zeros((links, len(PAIR_FEATURES)))
    division = _describe_divisions(first, second, source[one], target[one], target[two], radius, spacing)
    features = np.concatenate(
        (
            np.concatenate((pairs, pairs[one])),
            np.concatenate((blank, pairs[two])),
            np.concatenate((early[source], early[source[one]])),
            np.concatenate((late[target], late[target[one]])),
            np.concatenate((np.zeros((links, len(OBJECT_FEATURES))), late[target[two]])),
            frames,
            np.concatenate((np.zeros((links, len(DIVISION_FEATURES))), division)),
        ),
        axis=1,
    )
    return Candidates(
        frame=frame,
        gap=np.full(links + couples, gap, np.int64),
        source=np.concatenate((source, source[one])),
        target=np.concatenate((target, target[one])),
        sister=np.concatenate((np.full(links, -1, np.int64), target[two])),
        features=np.ascontiguousarray(features.T, dtype=np.float32),
    )


def _scales(first: Objects, second: Objects) -> tuple[float, float, Floats, float]:
    """Return typical radius, distance between neighbours, each source's drift (n, d) and the typical motion.

    The drift is what the mutually nearest pairs around a source have in common.
    """
    radius = float(np.median(np.concatenate((first.radius, second.radius)))) if len(first) + len(second) else 1.0
    radius = max(radius, 0.5)
    gaps = [neighbour_distance(objects) for objects in (first, second) if len(objects) > 1]
    spacing = float(np.median(np.concatenate(gaps))) if gaps else 4.0 * radius
    drift = np.zeros_like(first.place)
    if not len(first) or not len(second):
        return radius, max(spacing, radius), drift, radius
    forth = cKDTree(second.place).query(first.place)[1]
    back = cKDTree(first.place).query(second.place)[1]
    mutual = np.flatnonzero(back[forth] == np.arange(len(first)))
    steps = second.place[forth[mutual]] - first.place[mutual]
    motion = max(float(np.median(np.linalg.norm(steps, axis=1))), 0.05 * radius)
    if len(mutual) > 3:
        around = cKDTree(first.place[mutual]).query(first.place, k=min(7, len(mutual)))[1]
        drift = np.median(steps[around], axis=1)
    return radius, max(spacing, radius), drift, motion


def _nearest_of(others: list[Objects], objects: Objects, radius: float) -> Floats:
    """Return each object's distance to the nearest of others, in radii, at most 6; 6 where there are none."""
    nearest = np.full(len(objects), 6.0)
    for other in others:
        if len(other) and len(objects):
            nearest = np.minimum(nearest, cKDTree(other.place).query(objects.place)[0] / radius)
    return nearest


def neighbour_distance(objects: Objects) -> Floats:
    """Return each object's distance to the nearest other one, isotropic units; 0 when it is alone."""
    if len(objects) < 2:
        return np.zeros(len(objects))
    found: Floats = cKDTree(objects.place).query(objects.place, k=2)[0][:, 1]
    return found


def _near(first: Objects, second: Objects, nearest: int, reach: float) -> tuple[Integers, Integers, Floats]:
    """Return pairs in order of source and distance: the nearest targets of each source, the nearest source of each."""
    if not len(first) or not len(second):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    forth = cKDTree(second.place).query(first.place, k=np.arange(1, nearest + 1), distance_upper_bound=reach)[1]
    back = cKDTree(first.place).query(second.place, k=[1, 2], distance_upper_bound=reach)[1]
    source = np.concatenate((np.repeat(np.arange(len(first)), nearest), back.ravel()))
    target = np.concatenate((forth.ravel(), np.repeat(np.arange(len(second)), 2)))
    found = (source < len(first)) & (target < len(second))
    key = np.unique(source[found] * len(second) + target[found])
    source, target = key // len(second), key % len(second)
    distance = np.linalg.norm(second.place[target] - first.place[source], axis=1)
    order = np.lexsort((target, distance, source))
    return source[order], target[order], distance[order]


def _couples(source: Integers) -> tuple[Integers, Integers]:
    """Return all pairs of places with the same source, the nearer target first."""
    one, two = [], []
    longest = int(np.bincount(source).max()) if len(source) else 0
    for step in range(1, longest):
        first = np.flatnonzero(source[:-step] == source[step:])
        one.append(first)
        two.append(first + step)
    if not one:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    first, second = np.concatenate(one), np.concatenate(two)
    order = np.lexsort((second, first))
    return first[order], second[order]


def describe_objects(objects: Objects, radius: float) -> Floats:
    """Describe objects relative to the others of their frame: (n, 7)."""
    crowding = np.log1p(neighbour_distance(objects) / radius)
    return np.stack(
        (
            _standing(np.log(np.maximum(objects.size, 1.0)), 0.1),
            _standing(objects.mean, 0.02),
            _standing(objects.deviation, 0.01),
            _standing(objects.around, 0.02),
            np.log(objects.elongation),
            np.minimum(objects.border / radius, 6.0),
            crowding,
        ),
        axis=1,
    )


def _standing(values: Floats, least: float) -> Floats:
    """How far values stand out from the others', in robust standard deviations, at most 8."""
    if not len(values):
        return values
    return np.clip((values - np.median(values)) / max(_spread(values), least), -8.0, 8.0)


def _spread(values: Floats) -> float:
    """Return the standard deviation of normal values, which a few that stand out do not change."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


def _describe_pairs(
    first: Objects,
    second: Objects,
    source: Integers,
    target: Integers,
    distance: Floats,
    shared: Floats,
    scales: tuple[float, float, float],
    drift: Floats,
) -> Floats:
    """Describe pairs: (P, 21), see :data:`PAIR_FEATURES`."""
    radius, spacing, motion = scales
    rest = np.linalg.norm(second.place[target] - first.place[source] - drift[source], axis=1)
    joined = first.size[source] + second.size[target] - shared
    growth = np.log(np.maximum(second.size[target], 1.0) / np.maximum(first.size[source], 1.0))
    spread = max(_spread(np.concatenate((first.mean, second.mean))), 0.02)
    brighter = second.mean[target] - first.mean[source]
    rank_of_target, next_target = _competition(source, distance, len(first))
    rank_of_source, next_source = _competition(target, distance, len(second))
    return np.stack(
        (
            distance / radius,
            distance / spacing,
            np.minimum(distance / motion, 20.0),
            rest / radius,
            rest / spacing,
            shared / np.maximum(joined, 1.0),
            shared / np.maximum(first.size[source], 1.0),
            shared / np.maximum(second.size[target], 1.0),
            growth,
            np.abs(growth),
            np.clip(brighter / spread, -8.0, 8.0),
            np.abs(np.clip(brighter / spread, -8.0, 8.0)),
            np.clip((second.deviation[target] - first.deviation[source]) / spread, -8.0, 8.0),
            np.clip((second.around[target] - first.around[source]) / spread, -8.0, 8.0),
            np.log(second.elongation[target] / first.elongation[source]),
            np.minimum(rank_of_target, 5.0),
            np.minimum(rank_of_source, 5.0),
            np.log((distance + 0.1 * radius) / (next_source + 0.1 * radius)).clip(-4.0, 4.0),
            np.log((distance + 0.1 * radius) / (next_target + 0.1 * radius)).clip(-4.0, 4.0),
            _most_of_others(target, shared, len(second)) / np.maximum(second.size[target], 1.0),
            _most_of_others(source, shared, len(first)) / np.maximum(first.size[source], 1.0),
        ),
        axis=1,
    )


def _competition(group: Integers, distance: Floats, count: int) -> tuple[Floats, Floats]:
    """Return each pair's rank by distance among those of its group, and the least distance of the others."""
    order = np.lexsort((distance, group))
    starts = np.searchsorted(group[order], np.arange(count + 1))
    rank = np.empty(len(group))
    rank[order] = np.arange(len(group)) - starts[group[order]]
    least = np.full((count, 2), np.inf)
    for place in range(2):
        has = np.diff(starts) > place
        least[has, place] = distance[order][starts[:-1][has] + place]
    other = np.where(rank == 0, least[group, 1], least[group, 0])
    return rank, np.where(np.isfinite(other), other, distance * np.e**4 + 1.0)


def _most_of_others(group: Integers, shared: Floats, count: int) -> Floats:
    """Return the most pixels that any other pair of the same group shares."""
    top = np.zeros((count, 2))
    order = np.lexsort((-shared, group))
    starts = np.searchsorted(group[order], np.arange(count + 1))
    for place in range(2):
        has = np.diff(starts) > place
        top[has, place] = shared[order][starts[:-1][has] + place]
    best = np.zeros(len(group), bool)
    has = np.diff(starts) > 0
    best[order[starts[:-1][has]]] = True
    return np.asarray(np.where(best, top[group, 1], top[group, 0]))


def _describe_divisions(
    first: Objects, second: Objects, mother: Integers, one: Integers, two: Integers, radius: float, spacing: float
) -> Floats:
    """Describe divisions: (D, 12), see :data:`DIVISION_FEATURES`."""
    forth, aside = second.place[one] - first.place[mother], second.place[two] - first.place[mother]
    apart = second.place[two] - second.place[one]
    middle = np.linalg.norm(forth + aside, axis=1) / 2
    distance = np.linalg.norm(apart, axis=1)
    lengths = np.linalg.norm(forth, axis=1) * np.linalg.norm(aside, axis=1)
    axis = apart / np.maximum(distance, 1e-9)[:, None]
    one_size, two_size = np.maximum(second.size[one], 1.0), np.maximum(second.size[two], 1.0)
    spread = max(float(np.std(second.mean)), 0.02) if len(second) else 1.0
    return np.stack(
        (
            np.log((one_size + two_size) / np.maximum(first.size[mother], 1.0)),
            np.abs(np.log(one_size / two_size)),
            np.abs(second.mean[one] - second.mean[two]) / spread,
            np.abs(np.log(second.elongation[one] / second.elongation[two])),
            (forth * aside).sum(axis=1) / np.maximum(lengths, 1e-9),
            middle / radius,
            middle / spacing,
            distance / radius,
            distance / spacing,
            np.abs((axis * first.direction[mother]).sum(axis=1)) * np.log(first.elongation[mother]),
            np.abs((second.direction[one] * second.direction[two]).sum(axis=1)),
            ((second.mean[one] + second.mean[two]) / 2 - first.mean[mother]) / spread,
        ),
        axis=1,
    )

"""Objects from centre offsets: each foreground pixel votes for its object's centre, and the peaks are the objects.

The idea is Hough voting as in Panoptic-DeepLab (Cheng et al., CVPR 2020, arXiv:1911.10194) and EmbedSeg
(Lalit et al., Medical Image Analysis 2022, arXiv:2101.10033), decoded here so that each pixel's answer
depends on a bounded neighbourhood only (:func:`reach_of_decoding`): an image decoded block by block gives the
objects of the image decoded whole. Ties are broken by position, displacements are rounded relative to the
pixel, and objects are named by where their peak lies in the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.compiled import compiled
from cytoray_analysis.tasks.whole_objects import make_whole


@dataclass(frozen=True)
class VotingParameters:
    """How votes become objects.

    Attributes
    ----------
    foreground
        Logit above which a pixel belongs to an object.
    votes
        Fewest votes, summed over the neighbourhood of a peak, that make an object.
    neighbourhood
        Votes within this many pixels of a peak along each axis are summed.
    separation
        Two peaks are at least this far apart along an axis.
    capture
        A vote counts for the nearest peak within this distance along each axis.
    radius_share
        Separation and capture of a peak are at least this share of the radius of its object, but at most a quarter of
        `reach`. The radius is that of a disk or ball whose pixels vote from as far away.
    smallest
        Fewest pixels of an object, when it is in one piece and its holes are filled.
    probability
        Least mean probability of foreground of the pixels that voted for an object.
    reach
        Votes go no further than this along each axis.
    anisotropy
        How many times longer a pixel is along Z than along Y and X. Distances are given in pixels along Y and X; along
        Z they are as many pixels fewer, rounded up.
    """

    foreground: float = 0.0
    votes: float = 12.0
    separation: int = 3
    capture: int = 8
    smallest: int = 12
    reach: int = 64
    anisotropy: float = 1.0
    neighbourhood: int = 1
    radius_share: float = 0.0
    probability: float = 0.0

    def scaled(self, scale: tuple[float, ...]) -> VotingParameters:
        """Return what finds the same objects where they are `scale` times as wide along each axis, in pixels.

        The neighbourhood of a peak grows from 3 pixels, because votes for an object lie farther apart.
        """
        width = math.sqrt(scale[-1] * scale[-2])
        return replace(
            self,
            votes=self.votes * math.prod(scale),
            smallest=max(round(self.smallest * math.prod(scale)), 1),
            separation=max(round(self.separation * width), 1),
            capture=max(round(self.capture * width), 1),
            reach=math.ceil(self.reach * width),
            anisotropy=self.anisotropy * width / scale[0] if len(scale) == 3 else self.anisotropy,
            neighbourhood=max(round((3 * width - 1) / 2), 1),
        )

    @property
    def farthest(self) -> int:
        """Largest separation and capture that follow from a radius, in pixels along Y and X."""
        return self.reach // 4 if self.radius_share > 0 else 0

    def along(self, distance: int) -> tuple[int, int, int]:
        """Return a distance in pixels along Z, Y and X."""
        return math.ceil(distance / self.anisotropy), distance, distance


def reach_of_decoding(parameters: VotingParameters, dimensions: int = 2) -> tuple[int, ...]:
    """Return how far from a pixel the dense outputs may lie that change its object, in pixels along each spatial axis.

    A pixel's peak lies within ``reach + capture``. That peak, its rivals (within ``2 capture + separation``)
    and the object's other pixels (within ``reach + capture`` of it) are found by votes from within ``reach``,
    each of which reads one more offset, and sums over a neighbourhood.
    """
    capture, separation = (
        max(distance, parameters.farthest) for distance in (parameters.capture, parameters.separation)
    )
    distances = (parameters.reach, capture, separation)
    axes = zip(*map(parameters.along, distances), strict=True)
    near = parameters.neighbourhood
    farthest = [
        3 * reach + capture + max(2 * capture + separation, capture) + near for reach, capture, separation in axes
    ]
    return tuple(farthest[-dimensions:])


def decode_votes(
    foreground: NDArray[np.float32],
    offsets: NDArray[np.float32],
    parameters: VotingParameters,
    *,
    origin: tuple[int, ...] | None = None,
    frame: tuple[int, ...] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]:
    """Decode a block of dense outputs into objects.

    Parameters
    ----------
    foreground
        Logits, (Y, X) or (Z, Y, X).
    offsets
        Displacement to the object's centre per spatial axis, in pixels along that axis, (2, Y, X) or (3, Z, Y, X).
    origin, frame
        Where the block begins in the image, and the image's shape; the block is the whole image by default.

    Returns
    -------
    labels
        Object of each pixel, 1 to n in order of their identity, 0 for background; shape of `foreground`.
    identities
        (n + 1,) position of each object's peak in the image as a row-major index plus one; entry 0 is 0.
    confidence
        (n + 1,) mean foreground probability of each object's pixels, times the share of their votes that lie in the
        neighbourhood of its peak; entry 0 is 0.
    """
    shape = foreground.shape
    origin = origin or (0,) * len(shape)
    frame = frame or shape
    deep = (1,) * (3 - len(shape))
    start = np.array((0,) * len(deep) + tuple(origin), dtype=np.int64)
    extent = np.array(deep + tuple(frame), dtype=np.int64)
    logits = np.ascontiguousarray(foreground, dtype=np.float32).reshape(deep + shape)
    shifts = np.ascontiguousarray(offsets, dtype=np.float32).reshape((len(shape), *deep, *shape))
    pixels, targets = _destinations(
        logits, shifts, start, extent, parameters.foreground, parameters.along(parameters.reach)
    )
    separation, capture = parameters.along(parameters.separation), parameters.along(parameters.capture)
    peaks, votes, order, distances = _peaks(
        pixels,
        targets,
        logits.shape,
        parameters.votes,
        separation,
        parameters.neighbourhood,
        parameters.anisotropy,
        parameters.radius_share * math.sqrt(2 if len(shape) == 2 else 5 / 3),
        parameters.farthest,
    )
    ranks = np.argsort(order)  # not in a compiled function: numba would compile its sorting for seconds
    peaks, votes, distances = peaks[ranks], votes[ranks], distances[ranks]
    nearest = _nearest_peaks(peaks, distances, logits.shape, capture, parameters.anisotropy)
    labels, size, probability = _assign(logits, pixels, targets, nearest, len(peaks))
    make_whole(labels, len(peaks), flat=len(shape) == 2)
    least = parameters.smallest, parameters.probability
    identities, confidence = _renumber(labels, peaks, votes, size, probability, least, start, extent)
    return labels.reshape(shape), identities, confidence


COLUMN = 64  # pixels along Y and X that are gone through together


@compiled
def _destinations(foreground, offsets, start, extent, threshold, reach):  # type: ignore[no-untyped-def]
    """Follow every foreground pixel's offset, then the offset found there: far pixels err more than near ones."""
    depth, height, width = foreground.shape
    flat = offsets.shape[0] == 2
    count = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if foreground[z, y, x] > threshold:
                    count += 1
    pixel = np.empty((count, 3), np.int32)
    target = np.empty((count, 3), np.int32)
    index = 0
    # Column by column, so that votes that lie near each other in space do so in memory: 1.6 times as fast at 9 MVoxels.
    # Columns start at multiples of their width in the image, so that an object's pixels have one order in every block.
    for column in range(start[1] // COLUMN, (start[1] + height - 1) // COLUMN + 1):
        for row in range(start[2] // COLUMN, (start[2] + width - 1) // COLUMN + 1):
            first_y, last_y = max(column * COLUMN - start[1], 0), min((column + 1) * COLUMN - start[1], height)
            first_x, last_x = max(row * COLUMN - start[2], 0), min((row + 1) * COLUMN - start[2], width)
            for z in range(depth):
                for y in range(first_y, last_y):
                    for x in range(first_x, last_x):
                        if not foreground[z, y, x] > threshold:
                            continue
                        dz, dy, dx = np.float32(0), np.float32(0), np.float32(0)
                        a, b, c = z, y, x
                        for _ in range(2):
                            if flat:
                                dy += offsets[0, a, b, c]
                                dx += offsets[1, a, b, c]
                            else:
                                dz += offsets[0, a, b, c]
                                dy += offsets[1, a, b, c]
                                dx += offsets[2, a, b, c]
                            dz = min(max(dz, np.float32(-reach[0])), np.float32(reach[0]))
                            dy = min(max(dy, np.float32(-reach[1])), np.float32(reach[1]))
                            dx = min(max(dx, np.float32(-reach[2])), np.float32(reach[2]))
                            # Kept inside the image, not inside the block.
                            a = min(max(z + int(np.floor(dz + 0.5)), -start[0]), extent[0] - 1 - start[0])
                            b = min(max(y + int(np.floor(dy + 0.5)), -start[1]), extent[1] - 1 - start[1])
                            c = min(max(x + int(np.floor(dx + 0.5)), -start[2]), extent[2] - 1 - start[2])
                            outside = a < 0 or b < 0 or c < 0 or a >= depth or b >= height or c >= width
                            if outside or not foreground[a, b, c] > threshold:
                                break
                        pixel[index, 0], pixel[index, 1], pixel[index, 2] = z, y, x
                        target[index, 0], target[index, 1], target[index, 2] = a, b, c
                        index += 1
    return pixel, target


@compiled
def _peaks(pixel, target, shape, fewest, separation, near, anisotropy, spread, farthest):  # type: ignore[no-untyped-def]
    """Sum votes over neighbourhoods and return the local maxima, their sums, row-major positions, and distances.

    A peak's distance is `spread` times the root mean square distance from which its pixels vote: R/√2 in a disk of
    radius R, R·√(3/5) in a ball.
    """
    depth, height, width = shape
    votes = np.zeros(shape, np.int32)
    squares = np.zeros(shape, np.int64)  # whole numbers: their sum does not depend on the order of the pixels
    for index in range(len(target)):
        a, b, c = target[index, 0], target[index, 1], target[index, 2]
        if 0 <= a < depth and 0 <= b < height and 0 <= c < width:
            votes[a, b, c] += 1
            z, y, x = anisotropy * (pixel[index, 0] - a), pixel[index, 1] - b, pixel[index, 2] - c
            squares[a, b, c] += int(z**2 + 0.5) + y**2 + x**2
    density = np.zeros(shape, np.int32)
    cells = np.empty((len(target), 3), np.int32)
    distance = np.empty(len(target), np.int32)
    count = 0
    for index in range(len(target)):
        a, b, c = target[index, 0], target[index, 1], target[index, 2]
        if not (0 <= a < depth and 0 <= b < height and 0 <= c < width) or density[a, b, c] > 0:
            continue
        total, square = 0, 0
        for u in range(max(a - near, 0), min(a + near + 1, depth)):
            for v in range(max(b - near, 0), min(b + near + 1, height)):
                for w in range(max(c - near, 0), min(c + near + 1, width)):
                    total += votes[u, v, w]
                    square += squares[u, v, w]
        density[a, b, c] = total
        if total >= fewest:
            cells[count, 0], cells[count, 1], cells[count, 2] = a, b, c
            distance[count] = min(spread * math.sqrt(square / total), farthest)
            count += 1
    found = np.empty((count, 3), np.int32)
    sums = np.empty(count, np.int32)
    order = np.empty(count, np.int64)
    peaks = 0
    for index in range(count):
        a, b, c = cells[index, 0], cells[index, 1], cells[index, 2]
        own = density[a, b, c]
        highest = True
        own_separation = _at_least(separation, distance[index], anisotropy)
        for u in range(max(a - own_separation[0], 0), min(a + own_separation[0] + 1, depth)):
            for v in range(max(b - own_separation[1], 0), min(b + own_separation[1] + 1, height)):
                for w in range(max(c - own_separation[2], 0), min(c + own_separation[2] + 1, width)):
                    rival = density[u, v, w]
                    if rival < own or (u == a and v == b and w == c):
                        continue
                    before = u < a or (u == a and (v < b or (v == b and w < c)))
                    if rival > own or before:
                        highest = False
                        break
                if not highest:
                    break
            if not highest:
                break
        if highest:
            found[peaks, 0], found[peaks, 1], found[peaks, 2] = a, b, c
            sums[peaks] = own
            order[peaks] = (np.int64(a) * height + b) * width + c
            distance[peaks] = distance[index]
            peaks += 1
    return found[:peaks], sums[:peaks], order[:peaks], distance[:peaks]


@compiled
def _at_least(distances, least, anisotropy):  # type: ignore[no-untyped-def]
    """Return distances along Z, Y and X that are not shorter than one in pixels along Y and X."""
    return max(distances[0], math.ceil(least / anisotropy)), max(distances[1], least), max(distances[2], least)


@compiled
def _nearest_peaks(peaks, distance, shape, capture, anisotropy):  # type: ignore[no-untyped-def]
    """Paint around each peak the pixels it is nearest to (1-based; the earlier peak wins a tie)."""
    depth, height, width = shape
    nearest = np.zeros(shape, np.int32)
    square = anisotropy**2
    for index in range(len(peaks)):
        a, b, c = peaks[index, 0], peaks[index, 1], peaks[index, 2]
        own_capture = _at_least(capture, distance[index], anisotropy)
        for u in range(max(a - own_capture[0], 0), min(a + own_capture[0] + 1, depth)):
            for v in range(max(b - own_capture[1], 0), min(b + own_capture[1] + 1, height)):
                for w in range(max(c - own_capture[2], 0), min(c + own_capture[2] + 1, width)):
                    other = nearest[u, v, w]
                    if other > 0:
                        p, q, r = peaks[other - 1, 0], peaks[other - 1, 1], peaks[other - 1, 2]
                        there = square * (u - p) ** 2 + (v - q) ** 2 + (w - r) ** 2
                        if there <= square * (u - a) ** 2 + (v - b) ** 2 + (w - c) ** 2:
                            continue
                    nearest[u, v, w] = index + 1
    return nearest


@compiled
def _assign(foreground, pixel, target, nearest, peaks):  # type: ignore[no-untyped-def]
    """Return the peak of each pixel (1-based), and sizes and summed probabilities of objects."""
    depth, height, width = foreground.shape
    labels = np.zeros(foreground.shape, np.int32)
    size = np.zeros(peaks + 1, np.int64)
    probability = np.zeros(peaks + 1)
    for index in range(len(pixel)):
        a, b, c = target[index, 0], target[index, 1], target[index, 2]
        if 0 <= a < depth and 0 <= b < height and 0 <= c < width:
            chosen = nearest[a, b, c]
            size[chosen] += 1
            if chosen > 0:
                # Pixels are met in one order, in a block as in the whole: the sums are the same.
                z, y, x = pixel[index]
                labels[z, y, x] = chosen
                probability[chosen] += 1 / (1 + math.exp(-foreground[z, y, x]))
    return labels, size, probability


@compiled
def _renumber(labels, peaks, votes, size, probability, least, start, extent):  # type: ignore[no-untyped-def]
    """Drop objects too small or too faint, number the others in order of their peaks; return what is known of them."""
    depth, height, width = labels.shape
    pixels = np.zeros(len(peaks) + 1, np.int64)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                pixels[labels[z, y, x]] += 1
    rename = np.zeros(len(peaks) + 1, np.int32)
    identities = np.zeros(len(peaks) + 1, np.int64)
    confidence = np.zeros(len(peaks) + 1, np.float32)
    kept = 0
    for index in range(len(peaks)):
        if pixels[index + 1] >= max(least[0], 1) and probability[index + 1] >= least[1] * size[index + 1]:
            kept += 1
            rename[index + 1] = kept
            total = float(size[index + 1])
            confidence[kept] = probability[index + 1] / total * min(votes[index] / total, 1.0)
            a, b, c = peaks[index, 0], peaks[index, 1], peaks[index, 2]
            identities[kept] = ((a + start[0]) * extent[1] + b + start[1]) * extent[2] + c + start[2] + 1
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                labels[z, y, x] = rename[labels[z, y, x]]
    return identities[: kept + 1], confidence[: kept + 1]

"""A small movie with an exact lineage: a cell that divides, one that is lost for a frame, and one that leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.images import Image, image_from_array, write_image, write_labels
from cytoray_analysis.tracking.ctc import read_truth
from cytoray_analysis.tracking.lineage import Lineage

# Track, frames in which it is there, first place, step a frame.
CELLS = (
    (1, range(3), (20, 12), (1, 1)),
    (2, range(3, 6), (18, 9), (-2, 0)),
    (3, range(3, 6), (28, 18), (2, 1)),
    (4, range(2), (48, 12), (0, 2)),
    (5, range(3, 6), (48, 18), (0, 2)),
    (6, range(6), (12, 46), (2, 0)),
    (7, range(4), (50, 42), (1, 3)),
)
TRACKS = "1 0 2 0\n2 3 5 1\n3 3 5 1\n4 0 1 0\n5 3 5 4\n6 0 5 0\n7 0 3 0\n"


@dataclass(frozen=True)
class Sample:
    folder: Path
    movie: Image
    masks: Image
    truth: Lineage


def draw(depth: int | None = None) -> np.ndarray:
    """Return masks (T, Y, X), or (T, Z, Y, X), that carry track numbers."""
    masks = np.zeros((6, 64, 64), np.uint16)
    for track, frames, (y, x), (dy, dx) in CELLS:
        for step, frame in enumerate(frames):
            a, b = y + dy * step, x + dx * step
            masks[frame, a - 3 : a + 4, b - 3 : b + 4] = track
    if depth is None:
        return masks
    volume = np.zeros((6, depth, 64, 64), np.uint16)
    volume[:, 1:-1] = masks[:, None]
    return volume


@pytest.fixture
def write_sample(tmp_path: Path) -> Callable[..., Sample]:
    def write(depth: int | None = None) -> Sample:
        masks = draw(depth)
        axes = "YX" if depth is None else "ZYX"
        rng = np.random.default_rng(0)
        pixels = (200 + 10 * (masks > 0) * (5 + masks) + rng.integers(0, 5, masks.shape)).astype(np.uint16)
        for index in range(len(masks)):
            write_image(tmp_path / "01" / f"t{index:03d}.tif", image_from_array(pixels[index], axes))
            write_labels(tmp_path / "01_GT" / "TRA" / f"man_track{index:03d}.tif", masks[index])
        (tmp_path / "01_GT" / "TRA" / "man_track.txt").write_text(TRACKS)
        return Sample(
            tmp_path,
            image_from_array(pixels, "T" + axes),
            image_from_array(masks, "T" + axes),
            read_truth(tmp_path / "01_GT"),
        )

    return write


@pytest.fixture
def sample(write_sample: Callable[..., Sample]) -> Sample:
    return write_sample()

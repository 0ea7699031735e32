"""Predict one large image whole and at several tile sizes, in fp32 and bf16, and compare object by object.

    python tests/bench/tiles.py MODEL [--side 3000] [--images FOLDER]

The image is a mosaic of the images in FOLDER (grey, of one size), or of a synthetic field. Beside the match of objects,
the cuts are looked at: a torn object has an edge that runs straight along a cut.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.devices import Precision
from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.inference.pixels import PixelInference
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks.overlap import overlap
from cytoray_services.datasets import make_segmentation

MEBIBYTE = 2**20
BUDGETS = (4096, 512, 256, 128)
LONGEST_STRAIGHT_EDGE = 12


def mosaic(fields: list[NDArray[Any]], side: int) -> NDArray[Any]:
    height, width = fields[0].shape
    picture = np.zeros((side, side), fields[0].dtype)
    supply = cycle(fields)
    for y in range(0, side, height):
        for x in range(0, side, width):
            part = next(supply)[: side - y, : side - x]
            picture[y : y + part.shape[0], x : x + part.shape[1]] = part
    return picture


def straight_cuts(labels: NDArray[Any], places: range, axis: int) -> int:
    """Count straight edges along the lines at `places`: runs of pixels where one object ends and the next begins."""
    found = 0
    turned = labels if axis == 0 else labels.T
    for place in places:
        before, after = turned[place - 1], turned[place]
        edge = (before != after) & ((before > 0) | (after > 0))
        runs = np.diff(np.flatnonzero(np.diff(np.r_[0, edge.astype(np.int8), 0])))[::2]
        found += int((runs > LONGEST_STRAIGHT_EDGE).sum())
    return found


def compare(bundle: Bundle, picture: NDArray[Any], precision: Precision) -> None:
    image = image_from_array(picture, "YX")
    whole: NDArray[Any] | None = None
    for budget in BUDGETS:
        predictor = Predictor(bundle, precision=precision, memory_budget=budget * MEBIBYTE)
        answer = predictor.predict(image)
        whole = answer.answer if whole is None else whole
        measured = overlap(answer.answer, whole)
        matched = measured.iou[measured.matches(0.5)]
        assert isinstance(predictor.inference, PixelInference)
        shape = predictor.inference.tile_core(picture.shape)
        rows, columns = (range(step, length, step) for step, length in zip(shape, picture.shape, strict=True))
        # The same lines in the undivided answer tell how many such edges are there by nature.
        cut, uncut = (
            straight_cuts(labels, rows, 0) + straight_cuts(labels, columns, 1) for labels in (answer.answer, whole)
        )
        print(
            f"{precision}  tile {shape[0]} × {shape[1]}: {answer.objects} objects, {measured.truths} in the whole, "
            f"{len(matched)} matched, smallest IoU {matched.min(initial=1):.4f}, "
            f"{int((answer.answer != whole).sum())} pixels differ, straight edges at cuts {cut} (whole: {uncut}), "
            f"{sum(answer.seconds.values()):.1f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--side", type=int, default=3000)
    parser.add_argument("--images", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        if arguments.images:
            files = sorted(path for path in arguments.images.iterdir() if path.is_file())
        else:
            files = [item.image for item in make_segmentation(Path(folder) / "f", images=2, size=1000, seed=1).items]
        fields = [read_image(file).select("YX").read() for file in files]
    picture = mosaic(fields, arguments.side)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        compare(Bundle.load(arguments.model), picture, precision)


if __name__ == "__main__":
    main()

"""How true the outlines of a segmentation model are: shape, and size by the size of the object.

python tests/bench/outlines.py MODEL DATASET [--split val] [--where kind=fluo]

Of each true object of at least 60 pixels that is found (IoU of at least 0.5): the perimeter compared with that of the
truth, both divided by the root of the area; the solidity of both; whether it is one piece by pixel edges; whether it
has holes; and the ratio of the areas, in bins of the true area. True objects are cleaned first: the largest piece,
without holes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from skimage import measure as shapes

import cytoray
from cytoray_analysis.images import read_image
from cytoray_analysis.tasks.instance_scores import count_objects, score_instances
from cytoray_services.datasets import DataSource

BINS = (60, 150, 400, 1000, 10**9)
SHOWN = ("msa", "msa_pooled", "ap50", "ap75", "ap90", "surface_dice", "count_error")
Labels = NDArray[np.integer[Any]]


def _regions(labels: Labels) -> list[Any]:
    return list(shapes.regionprops(labels))  # type: ignore[no-untyped-call]


def _pieces(image: NDArray[Any]) -> NDArray[np.int64]:
    """Number the pieces of an object, connected along axes."""
    return np.asarray(shapes.label(image, connectivity=1), np.int64)  # type: ignore[no-untyped-call]


def found_objects(answer: Labels, truth: Labels) -> Iterator[tuple[Any, Any]]:
    """Yield the region of each true object that is found, and that of the object found."""
    answers = {one.label: one for one in _regions(answer)}
    for one in _regions(truth):
        names, counts = np.unique(answer[tuple(one.coords.T)], return_counts=True)
        names, counts = names[names > 0], counts[names > 0]
        if len(names) == 0 or one.area < BINS[0]:
            continue
        other = answers[names[counts.argmax()]]
        if counts.max() / (other.area + one.area - counts.max()) >= 0.5:
            yield cleaned(one), other


def cleaned(region: Any) -> Any:
    """Return the region of the largest piece of an object, without its holes."""
    pieces = _pieces(region.image)
    largest = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return _regions(binary_fill_holes(largest).astype(np.uint8))[0]


def outline_facts(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Summarise the outlines of found objects."""
    pieces = [_pieces(answer.image).max() > 1 for _, answer in pairs]
    holes = [bool((binary_fill_holes(answer.image) != answer.image).any()) for _, answer in pairs]
    ratios = [
        answer.perimeter / true.perimeter * np.sqrt(true.area / answer.area) for true, answer in pairs if true.perimeter
    ]
    areas = np.array([(true.area, answer.area) for true, answer in pairs], float).reshape(-1, 2)
    bias = {}
    for low, high in pairwise(BINS):
        chosen = areas[(areas[:, 0] >= low) & (areas[:, 0] < high)]
        if len(chosen):
            bias[f"{low}+"] = (len(chosen), round(float(np.median(chosen[:, 1] / chosen[:, 0])) - 1, 3))
    solidity = np.mean([(answer.solidity, true.solidity) for true, answer in pairs], axis=0)
    return {
        "found": len(pairs),
        "perimeter": round(float(np.median(ratios)), 3),
        "solidity, truth": [round(float(value), 3) for value in solidity],
        "in pieces": round(float(np.mean(pieces)), 4),
        "with holes": round(float(np.mean(holes)), 4),
        "area by true area": bias,
    }


def measure(model: Any, items: Any, **options: Any) -> dict[str, Any]:
    """Predict labelled images and return scores and facts about outlines."""
    rows: list[NDArray[np.float64]] = []
    pairs: list[tuple[Any, Any]] = []
    for item in items:
        truth = np.asarray(read_image(item.truth, labels=True).read()).astype(np.int64)
        answer = model.predict(item.image, **options).labels
        rows.append(count_objects(answer, truth))
        pairs += found_objects(answer, truth)
    scores = score_instances(rows)
    return {name: round(scores[name], 4) for name in SHOWN} | outline_facts(pairs)


def main() -> None:
    """Measure a model on a data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="reference of a model or a bundle folder")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--where", default="", help="COLUMN=START: only rows whose column starts so")
    given = parser.parse_args()
    column, _, start = given.where.partition("=")
    items = [
        item
        for item in DataSource((given.dataset.resolve(),), "labels").open().items
        if item.split == given.split and (not column or item.row[column].startswith(start))
    ]
    print(json.dumps(measure(cytoray.load_model(given.model), items), indent=1))


if __name__ == "__main__":
    main()

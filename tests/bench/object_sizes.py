"""Does a model find objects of any size? Images of a data set are zoomed, and answers scored at the zoomed size.

python tests/bench/object_sizes.py MODEL DATASET [--split val] [--where kind=fluo] [--widths 8 12 16 24 32 48 64 80]

Each image is zoomed so that its usual object has the wanted width. The model answers without a width, with `diameter`
and with `diameter="auto"`. Prints ap50 and msa of each, as tables in Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import cytoray
from cytoray_analysis.images import image_from_array, resample_labels
from cytoray_analysis.images.resample import resample_image
from cytoray_analysis.object_width import usual_width
from cytoray_analysis.tasks.instance_scores import count_objects, score_instances
from cytoray_services.datasets import DataSource, read_labelled

WIDTHS = (8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 80.0)
WAYS = ("as it is", "diameter", "auto")
LARGEST = 4096  # pixels along an axis


def zoomed(pixels: NDArray[Any], labels: NDArray[Any], factor: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return pixels (C, Y, X) and labels (Y, X) at another size; labels by the nearest pixel, as truths are stored."""
    larger = resample_image(pixels, factor)
    return larger, resample_labels(labels, larger.shape[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--where", help="COLUMN=START: only rows whose column starts so")
    parser.add_argument("--widths", type=float, nargs="*", default=WIDTHS)
    words = parser.parse_args()
    dataset = DataSource((words.dataset,), "labels").open().split(words.split)
    if words.where:
        column, _, start = words.where.partition("=")
        dataset = dataset.where(column, f"{start}*")
    model = cytoray.load_model(words.model)
    print("| width, px | images | " + " | ".join(f"ap50, {way} | msa, {way}" for way in WAYS) + " |")
    print("|---|---|" + "---|---|" * len(WAYS))
    for width in words.widths:
        counted: dict[str, list[Any]] = {way: [] for way in WAYS}
        for items in dataset.images:
            labelled = read_labelled(dataset, items, {})
            own = usual_width(labelled.truth)
            if own is None or max(labelled.truth.shape) * width / own > LARGEST:
                continue
            pixels = labelled.image.select("CYX").read()
            larger, truth = zoomed(pixels, labelled.truth, width / own)
            image = image_from_array(larger, "CYX", channels=labelled.image.channels)
            for way, given in zip(WAYS, ({}, {"diameter": width}, {"diameter": "auto"}), strict=True):
                options: dict[str, Any] = dict(given)
                counted[way].append(count_objects(model.predict(image, **options).labels, truth))
        scores = [score_instances(counted[way]) for way in WAYS]
        row = [f"{one.get(name, float('nan')):.3f}" for one in scores for name in ("ap50", "msa")]
        print(f"| {width:g} | {len(counted['auto'])} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()

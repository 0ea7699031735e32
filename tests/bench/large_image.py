"""Segment an OME-Zarr larger than memory allows, OME-Zarr to OME-Zarr, and say what it took.

    python tests/bench/large_image.py MODEL [--side 20000]

The image repeats one synthetic field; it is segmented in a process of its own, whose peak resident memory is measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.images import Image, image_from_array, read_image, write_image
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets.synthetic.segmentation import make_segmentation


@dataclass(frozen=True)
class Mosaic:
    """A large image that repeats a small one; only what is sliced is made."""

    field: NDArray[Any]
    shape: tuple[int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.field.dtype

    def __getitem__(self, region: tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = (np.arange(*part.indices(length)) for part, length in zip(region, self.shape, strict=True))
        part: NDArray[Any] = self.field[np.ix_(rows % self.field.shape[0], columns % self.field.shape[1])]
        return part


def write_mosaic(folder: Path, side: int) -> Path:
    dataset = make_segmentation(folder / "field", images=1, size=2000, seed=1)
    field = read_image(dataset.items[0].image).select("YX").read()
    path = folder / "mosaic.ome.zarr"
    write_image(path, image_from_array(Mosaic(field, (side, side)), "YX", pixel_size={"Y": 0.5, "X": 0.5}))
    return path


def segment(model: Path, source: Path, target: Path) -> dict[str, Any]:
    start = time.perf_counter()
    image: Image = read_image(source)
    predictor = Predictor(Bundle.load(model))
    stored = predictor.predict_to_zarr(
        image, target, progress=lambda done, total: print(f"block {done} of {total}", file=sys.stderr, flush=True)
    )
    seconds = time.perf_counter() - start
    return {
        "shape": stored.answer.shape,
        "objects": stored.objects,
        "seconds": round(seconds, 1),
        "megapixels_per_second": round(np.prod(stored.answer.shape) / 1e6 / seconds, 2),
        "stages": {name: round(spent, 1) for name, spent in stored.seconds.items()},
        "peak_resident_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--segment", nargs=2, type=Path, metavar=("SOURCE", "TARGET"))
    arguments = parser.parse_args()
    if arguments.segment:
        print(json.dumps(segment(arguments.model, *arguments.segment)))
        return
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        source = write_mosaic(Path(folder), arguments.side)
        command = [
            sys.executable,
            __file__,
            str(arguments.model),
            "--segment",
            str(source),
            f"{folder}/labels.ome.zarr",
        ]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

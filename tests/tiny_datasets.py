"""Small sound data sets of 32 x 32 pixels in every format, in which the check finds nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import imageio.v3
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cytoray_analysis.images import image_from_array, write_image
from cytoray_services.datasets import make_segmentation
from cytoray_services.datasets.synthetic.label_free import make_label_free
from cytoray_services.datasets.synthetic.tracking import make_tracking
from cytoray_services.datasets.synthetic.volumes import make_volumes

SIDE = 32
NAMES = ("DAPI", "Actin")
PIXEL_SIZE = {"Y": 0.65, "X": 0.65}
_PAIRS = {"train": 6, "val": 3}  # images of each split
_EACH = {"train": 11, "val": 10}  # images of each class

# By name: the suffixes of images, the suffixes of masks or targets (none for classes), and how TIFFs are written.
TINY: Mapping[str, tuple[Sequence[str], Sequence[str], Mapping[str, Any]]] = {
    "cells, deflate TIFF": ((".tif",), (".tif",), {"compression": "zlib", "predictor": True}),
    "cells, plain TIFF": ((".tif",), (".tif",), {}),
    "cells, OME-TIFF": ((".ome.tif",), (".ome.tif",), {}),
    "cells, LZW TIFF": ((".tif",), (".tif",), {"compression": "lzw"}),
    "cells, JPEG": ((".jpg",), (".png",), {}),
    "cells, PNG": ((".png",), (".png",), {}),
    "cells, OME-Zarr": ((".ome.zarr",), (".ome.zarr",), {}),
    "cells, mixed": ((".tif", ".ome.zarr", ".ome.tif"), (".png", ".tif"), {"compression": "zlib"}),
    "label-free, deflate TIFF": ((".tif",), (".tif",), {"compression": "zlib", "predictor": True}),
    "label-free, OME-TIFF": ((".ome.tif",), (".ome.tif",), {}),
    "classes, PNG": ((".png",), (), {}),
    "classes, deflate TIFF": ((".tif",), (), {"compression": "zlib", "predictor": True}),
    "made cells, 8 bit": ((".tif",), (".tif",), {}),
    "made cells, 16 bit": ((".tif",), (".tif",), {}),
    "made label-free": ((".tif",), (".tif",), {}),
    "made volumes": ((".tif",), (".tif",), {}),
    "made movies": ((".tif",), (".tif",), {}),
}


def _make_movies(folder: Path) -> None:
    """Make two movies of 64 x 64 pixels, the smallest there are, in the folders of two splits."""
    for seed, split in enumerate(("train", "val")):
        make_tracking(folder / split, movies=1, frames=8, size=64, seed=seed)


_MADE: Mapping[str, Callable[[Path], object]] = {
    "made cells, 8 bit": lambda folder: make_segmentation(folder, images=12, size=SIDE, seed=1),
    "made cells, 16 bit": lambda folder: make_segmentation(folder, images=8, size=SIDE, seed=2, dtype="uint16"),
    "made label-free": lambda folder: make_label_free(folder, images=12, size=SIDE),
    "made volumes": lambda folder: make_volumes(folder, images=8, depth=10, size=SIDE),
    "made movies": _make_movies,
}


def make_tiny(name: str, folder: Path) -> Path:
    """Make one of :data:`TINY`, the same every time."""
    if name in _MADE:
        _MADE[name](folder)
        return folder
    images, truths, options = TINY[name]
    rng = np.random.default_rng(sorted(TINY).index(name))
    if not truths:
        for split, count in _EACH.items():
            for kind in ("round", "flat"):
                for index in range(count):
                    cell = _cells(rng, objects=1, flat=kind == "flat")[0]
                    store(folder / split / kind / f"{split}_{kind}_{index}{images[0]}", cell, **options)
        return folder
    label_free = name.startswith("label-free")
    first, second = ("inputs", "targets") if label_free else ("images", "masks")
    for split, count in _PAIRS.items():
        for index in range(count):
            image, labels = _cells(rng, objects=5)
            truth = _transmitted(image, rng) if label_free else labels
            both = (".ome.tif", ".ome.zarr")
            if images[index % len(images)] in both and images[0] in both and not label_free:
                image = np.stack([image, _noisy(1200.0 * gaussian_filter((labels > 0) * 1.0, 2.0), rng)])
            suffix, other = images[index % len(images)], truths[index % len(truths)]
            if suffix in (".png", ".jpg"):
                image = (image / 20).clip(0, 255).astype(np.uint8)
            store(folder / split / first / f"{split}_{index}{suffix}", image, **options)
            store(folder / split / second / f"{split}_{index}{other}", truth, **options)
    return folder


def store(
    path: Path,
    pixels: NDArray[Any],
    *,
    channels: Sequence[str] | None = None,
    pixel_size: Mapping[str, float] | None = None,
    axes: str = "CYX",
    **options: Any,
) -> None:
    """Write (Y, X) or (C, Y, X) in the format of the suffix; `options` are those of tifffile for ``.tif``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".ome.tif", ".zarr")):
        axes = axes[-pixels.ndim :]
        count = pixels.shape[0] if "C" in axes else 1
        names = tuple(channels or (NAMES if count == 2 else [f"channel {index}" for index in range(count)]))
        write_image(path, image_from_array(pixels, axes, channels=names, pixel_size=pixel_size or PIXEL_SIZE))
    elif path.suffix == ".png":
        if pixels.ndim == 3:
            pixels = np.moveaxis(np.concatenate([pixels, pixels[:1]])[:3], 0, -1)
        wide = pixels.dtype not in (np.uint8, np.uint16)
        stored = pixels.clip(0, 65_535).astype(np.uint16) if wide else pixels
        path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(stored)))
    elif path.suffix == ".jpg":
        imageio.v3.imwrite(path, pixels.reshape(-1, *pixels.shape[-2:])[0].clip(0, 255).astype(np.uint8), quality=95)
    else:
        kind: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "separate"} if pixels.ndim == 3 else {}
        tifffile.imwrite(path, pixels, **kind, **options)


def _cells(
    rng: np.random.Generator, *, objects: int, flat: bool = False
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return a noisy picture of bright cells on a dark ground, and their numbers."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    labels, bright = np.zeros((SIDE, SIDE), np.uint16), np.zeros((SIDE, SIDE))
    number = 0
    for _ in range(200):
        if number == objects:
            break
        middle = rng.uniform(5, SIDE - 5, 2) if objects > 1 else rng.uniform(12, SIDE - 12, 2)
        radii = rng.uniform(3.0, 4.5, 2) if objects > 1 else rng.uniform(6, 8, 2)
        if flat:
            radii[0] /= 2
        inside = ((rows - middle[0]) / radii[0]) ** 2 + ((columns - middle[1]) / radii[1]) ** 2 <= 1
        apart = ((rows - middle[0]) / (radii[0] + 1)) ** 2 + ((columns - middle[1]) / (radii[1] + 1)) ** 2 <= 1
        if labels[apart].any():
            continue
        number += 1
        labels[inside] = number
        bright[inside] = rng.uniform(1800, 2600)
    return _noisy(gaussian_filter(bright, 1.0), rng), labels


def _noisy(light: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return what a camera makes of light: an offset, shot noise and noise of reading."""
    seen = 400 + rng.poisson(light + 60) + rng.normal(0, 5, light.shape)
    return np.asarray(seen.clip(0, 65_535).round().astype(np.uint16))


def _transmitted(image: NDArray[np.uint16], rng: np.random.Generator) -> NDArray[np.uint16]:
    smooth = gaussian_filter(image.astype(float), 0.7)
    return _noisy(4000 - 1.2 * (smooth - smooth.min()), rng)

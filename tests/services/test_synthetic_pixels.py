"""Synthetic data sets of a seed stay what they are, so that results which were published of them can be repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.images import read_image
from cytoray_services.datasets import Dataset, make_segmentation
from cytoray_services.datasets.synthetic.classification import make_classification
from cytoray_services.datasets.synthetic.label_free import make_label_free
from cytoray_services.datasets.synthetic.tracking import make_tracking
from cytoray_services.datasets.synthetic.volumes import make_volumes

MADE: list[tuple[Callable[..., Dataset], dict[str, Any], str]] = [
    (make_segmentation, {"images": 4, "size": 64, "transmitted": 0.5}, "f2dc2232c12fe977"),
    (make_segmentation, {"images": 2, "size": (40, 72), "dtype": "uint16"}, "25868c9e93e92a9c"),
    (make_volumes, {"images": 2, "depth": 9, "size": 32}, "62bf501b61fabbab"),
    (make_classification, {"images": 2, "size": 96, "classes": 3, "imbalance": 2.0}, "db7f0922880d44e7"),
    (make_classification, {"images": 2, "size": 96, "layout": "folders"}, "f31ea4fe5ce53115"),
    (make_label_free, {"images": 2, "size": 48}, "0a0b0f0dee26f354"),
    (make_label_free, {"images": 2, "size": (40, 48), "planes": 3, "volume": True, "channels": 2}, "4722dfdd4f6a1ebb"),
    (make_tracking, {"movies": 3, "size": 64, "frames": 6}, "e56437e0c3ae813d"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "options", "expected"), MADE)
def test_a_seed_gives_the_same_files_with_the_same_pixels_as_ever(
    make: Callable[..., Dataset], options: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    make(tmp_path, seed=7, **options)
    assert pixels_hash(tmp_path) == expected


def pixels_hash(folder: Path) -> str:
    """Hash the names of all files, the pixels of images and the text of others; not how images are compressed."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        digest.update(path.relative_to(folder).as_posix().encode())
        if path.suffix == ".tif":
            image = read_image(path)
            digest.update(f"{image.axes} {image.shape} {image.dtype} {image.pixel_size}".encode())
            digest.update(image.read().tobytes())
        else:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]

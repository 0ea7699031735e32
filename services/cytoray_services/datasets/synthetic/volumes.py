"""Synthetic fluorescent nuclei in volumes with exact truth: ellipsoids in a confocal microscope."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import image_from_array, write_image, write_labels
from cytoray_services.datasets.dataset import Dataset
from cytoray_services.datasets.synthetic.folder import Row, make_dataset, sides

PIXEL_SIZE = {"Z": 1.0, "Y": 0.5, "X": 0.5}
"""Micrometres per pixel: the plane distance is twice the pixel size."""
_ANISOTROPY = PIXEL_SIZE["Z"] / PIXEL_SIZE["Y"]
_RADIUS = (5.0, 8.0)  # in pixels of Y and X
_LEAST_VOXELS = 30
_SMALLEST = (8, 32, 32)


def make_volumes(
    folder: str | Path,
    *,
    images: int = 12,
    depth: int = 24,
    size: int | tuple[int, int] = 96,
    seed: int = 0,
    dtype: Literal["uint8", "uint16"] = "uint8",
    overwrite: bool = False,
) -> Dataset:
    """Write a data set of volumes of synthetic nuclei with exact instance labels.

    Parameters
    ----------
    folder
        Folder to write; receives ``images/``, ``masks/`` (OME-TIFF, axes ZYX, with pixel sizes) and ``manifest.csv``
        with the columns ``image,mask,split,n_objects``. Every fourth volume is ``val``, the others are ``train``.
    images
        Number of volumes, at least 1.
    depth
        Planes of a volume, at least 8; their distance is twice the pixel size.
    size
        Side of the square planes, or ``(Y, X)``, at least 32.
    dtype
        ``uint8``, or ``uint16`` with the range of a 12-bit camera.
    seed, overwrite
        See :func:`cytoray_services.datasets.synthetic.folder.make_dataset`.

    Raises
    ------
    RequestError
        An argument is out of range.
    DatasetError
        See :func:`cytoray_services.datasets.synthetic.folder.make_dataset`.
    """
    shape = (int(depth), *sides(size))
    if images < 1 or seed < 0 or any(length < least for length, least in zip(shape, _SMALLEST, strict=True)):
        raise RequestError(
            f"expected at least 1 volume of at least {_show(_SMALLEST)} and a seed of at least 0, "
            f"got {images} of {_show(shape)}, seed {seed}"
        )

    def draw(root: Path, index: int, rng: np.random.Generator, split: str) -> Iterator[Row]:
        picture, labels = draw_volume(rng, shape)
        stored = np.round(picture * (255 if dtype == "uint8" else 4095)).astype(dtype)
        name = f"{index:04d}.ome.tif"
        write_image(root / "images" / name, image_from_array(stored, "ZYX", pixel_size=PIXEL_SIZE))
        write_labels(root / "masks" / name, labels, pixel_size=PIXEL_SIZE)
        yield f"images/{name}", f"masks/{name}", split, int(labels.max())

    columns = ("image", "mask", "split", "n_objects")
    return make_dataset(folder, draw, images=images, seed=seed, overwrite=overwrite, columns=columns)


def draw_volume(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Draw one volume of nuclei.

    Parameters
    ----------
    rng
        Random generator.
    shape
        ``(Z, Y, X)``.

    Returns
    -------
    image : numpy.ndarray
        float32 (Z, Y, X) in 0 … 1.
    labels : numpy.ndarray
        int32 (Z, Y, X), objects numbered from 1 without gaps, each in one piece; some touch.
    """
    labels = np.zeros(shape, np.int32)
    signal = np.zeros(shape, np.float32)
    typical = 4 / 3 * math.pi * (sum(_RADIUS) / 2) ** 3 / _ANISOTROPY
    wanted = rng.uniform(0.06, 0.18) * math.prod(shape) / typical
    count = 0
    for _ in range(max(6, round(4 * wanted))):
        if count >= max(1.0, wanted):
            break
        region, inside, profile = _draw_nucleus(rng, shape)
        if np.count_nonzero(inside) < _LEAST_VOXELS or labels[region][inside].any():
            continue
        count += 1
        labels[region][inside] = count
        signal[region][inside] = profile[inside]
    return _photograph(rng, signal), labels


_Stamp = tuple[tuple[slice, ...], NDArray[np.bool_], NDArray[np.float32]]


def _draw_nucleus(rng: np.random.Generator, shape: tuple[int, int, int]) -> _Stamp:
    """Return the region of an ellipsoid, its pixels, and its brightness from middle to edge."""
    radius = rng.uniform(*_RADIUS)
    stretch = rng.uniform(1.0, 1.25)
    radii = np.array([radius * rng.uniform(0.85, 1.1) / _ANISOTROPY, radius / stretch, radius * stretch])
    centre = [rng.uniform(0, length) for length in shape]
    reach = [radii[0], radii.max(), radii.max()]
    region = tuple(
        slice(max(0, math.floor(middle - far)), min(length, math.ceil(middle + far) + 1))
        for middle, far, length in zip(centre, reach, shape, strict=True)
    )
    z, y, x = (axis - middle for axis, middle in zip(np.ogrid[region], centre, strict=True))
    angle = rng.uniform(0.0, math.pi)
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    depth = np.sqrt((z / radii[0]) ** 2 + (across / radii[1]) ** 2 + (along / radii[2]) ** 2)
    profile = rng.uniform(0.5, 1.0) * (1.0 - 0.4 * depth**2)
    return region, depth <= 1.0, profile.astype(np.float32)


def _photograph(rng: np.random.Generator, signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Simulate the microscope image of nuclei: texture, blur that is longer in depth, fading with depth, noise."""
    from scipy.ndimage import gaussian_filter

    texture = gaussian_filter(rng.standard_normal(signal.shape), (0.6, 1.2, 1.2))
    seen = gaussian_filter(signal * (1.0 + 0.25 * texture / texture.std()).clip(0.2), (0.9, 1.0, 1.0))
    seen = seen.clip(0.0) + rng.uniform(0.04, 0.12)
    seen *= np.exp(-np.linspace(0.0, rng.uniform(0.1, 0.5), len(signal)))[:, None, None]
    photons = rng.uniform(40.0, 200.0)
    noisy = rng.poisson(seen * photons) / photons + rng.normal(0.0, 0.01, signal.shape)
    brightest = max(float(np.quantile(seen, 0.998)), 1e-3)
    return np.asarray(np.clip(noisy / brightest * rng.uniform(0.55, 0.95), 0.0, 1.0), np.float32)


def _show(shape: tuple[int, ...]) -> str:
    return " × ".join(str(length) for length in shape)

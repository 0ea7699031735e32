"""Synthetic pairs of transmitted light and fluorescence: cells as domes in both modalities.

One plane is a phase-contrast image: thick is dark, with a bright halo. A stack is a bright-field image: by the
transport-of-intensity equation (Teague, J Opt Soc Am 73, 1434 (1983)) a plane out of focus shows the curvature of the
cells' thickness, with opposite signs above and below, and the plane in focus shows almost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import image_from_array, write_image
from cytoray_services.datasets.dataset import Dataset
from cytoray_services.datasets.synthetic.folder import Row, make_dataset, sides
from cytoray_services.datasets.synthetic.segmentation import draw_field

CHANNELS = ("body", "nucleus")
_CAMERA_OFFSET = 100.0
_PLANE_DISTANCE = 4.0  # pixels of the plane between two planes of a stack


def make_label_free(
    folder: str | Path,
    *,
    images: int = 48,
    size: int | tuple[int, int] = 128,
    planes: int = 1,
    volume: bool = False,
    channels: int = 1,
    seed: int = 0,
    overwrite: bool = False,
) -> Dataset:
    """Write a data set of transmitted-light images with the fluorescence of the same cells.

    Parameters
    ----------
    folder
        Folder to write; receives ``inputs/``, ``targets/`` and ``manifest.csv`` (columns ``input,target,split``).
        Every fourth pair is ``val``, the others are ``train``. All images are uint16.
    images
        Number of pairs, at least 1.
    size
        Side of the square images, or ``(Y, X)``, at least 32.
    planes
        Planes of the input; above 1 it is a stack (Z, Y, X).
    volume
        Whether the target has the planes of the input, (Z, Y, X), instead of being one plane (Y, X).
    channels
        1: the cells' bodies; 2: their bodies and nuclei, as a channel axis of the target.
    seed, overwrite
        See :func:`cytoray_services.datasets.synthetic.folder.make_dataset`.

    Raises
    ------
    RequestError
        An argument is out of range.
    DatasetError
        See :func:`cytoray_services.datasets.synthetic.folder.make_dataset`.
    """
    shape = sides(size)
    if images < 1 or min(shape) < 32 or planes < 1 or not 1 <= channels <= len(CHANNELS) or seed < 0:
        raise RequestError(
            f"expected at least 1 pair of at least 32 × 32 with at least 1 plane, 1 or 2 channels and a seed of "
            f"at least 0, got {images} of {shape[0]} × {shape[1]}, {planes} planes, {channels} channels, seed {seed}"
        )
    if volume and planes < 2:
        raise RequestError(f"expected at least 2 planes for a volume, got {planes}", field="planes")

    def draw(root: Path, index: int, rng: np.random.Generator, split: str) -> Iterator[Row]:
        light, stain = draw_pair(rng, shape, planes=planes, volume=volume)
        name = f"{index:04d}.tif"
        flat = light[0] if planes == 1 else light
        write_image(root / "inputs" / name, image_from_array(flat, "YX" if planes == 1 else "ZYX"))
        seen = stain[0] if channels == 1 else stain
        axes = ("" if channels == 1 else "C") + ("ZYX" if volume else "YX")
        write_image(root / "targets" / name, image_from_array(seen, axes))
        yield f"inputs/{name}", f"targets/{name}", split

    columns = ("input", "target", "split")
    return make_dataset(folder, draw, images=images, seed=seed, overwrite=overwrite, columns=columns, truth="image")


def draw_pair(
    rng: np.random.Generator, shape: tuple[int, int], *, planes: int = 1, volume: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one field in transmitted light and in fluorescence.

    Parameters
    ----------
    rng
        Random generator.
    shape
        ``(Y, X)``.
    planes
        Planes of the input.
    volume
        Whether the fluorescence has them as well.

    Returns
    -------
    light : numpy.ndarray
        uint16 (planes, Y, X).
    stain : numpy.ndarray
        uint16 (2, Y, X), or (2, planes, Y, X) with `volume`: bodies and nuclei.
    """
    _, labels = draw_field(rng, shape)
    height = _domes(labels)
    inner = np.clip(height - 0.6 * _per_object(labels, height), 0.0, None) * 2.0
    expression = rng.lognormal(0.0, 0.2, int(labels.max()) + 1).astype(np.float32)[labels]
    light = _phase_contrast(rng, height) if planes == 1 else _bright_field(rng, height + inner / 2, planes)
    stains = [_fluorescence(rng, part, planes if volume else None) for part in (height * expression, inner)]
    return light, np.stack(stains)


def _domes(labels: np.ndarray) -> np.ndarray:
    """Return the height of cells, (Y, X) float32 in pixels: a quarter ellipse from the border inwards."""
    from scipy.ndimage import distance_transform_edt
    from skimage.segmentation import find_boundaries

    apart = (labels > 0) & ~find_boundaries(labels, mode="inner")  # type: ignore[no-untyped-call]
    depth = np.asarray(distance_transform_edt(apart), np.float32)
    deepest = np.maximum(_per_object(labels, depth), 1.0)
    share = np.clip(depth / deepest, 0.0, 1.0)
    return np.asarray(np.sqrt(1.0 - (1.0 - share) ** 2) * np.sqrt(deepest) * (labels > 0), np.float32)


def _per_object(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return, in each pixel, the largest value within its object."""
    largest = np.zeros(int(labels.max()) + 1, np.float32)
    np.maximum.at(largest, labels.ravel(), values.ravel())
    largest[0] = 0.0
    return np.asarray(largest[labels])


def _phase_contrast(rng: np.random.Generator, height: np.ndarray) -> np.ndarray:
    """Render thickness as darkness with a halo, (1, Y, X) uint16."""
    from scipy.ndimage import gaussian_filter

    phase = gaussian_filter(height, 1.0)
    seen = 1.0 - 0.12 * phase + 0.14 * (gaussian_filter(height, 5.0))
    return _camera(rng, (seen * _light(rng, height.shape))[None], gain=8000.0, noise=0.012)


def _bright_field(rng: np.random.Generator, height: np.ndarray, planes: int) -> np.ndarray:
    """Render the curvature of thickness in planes above and below the focus, (planes, Y, X) uint16."""
    from scipy.ndimage import gaussian_filter, laplace

    curvature = laplace(gaussian_filter(height, 1.2))
    focus = (planes - 1) / 2
    stack = [
        1.0 - 0.005 * height - 0.25 * (plane - focus) * gaussian_filter(curvature, 0.6 * abs(plane - focus))
        for plane in range(planes)
    ]
    return _camera(rng, np.stack(stack) * _light(rng, height.shape), gain=8000.0, noise=0.012)


def _fluorescence(rng: np.random.Generator, amount: np.ndarray, planes: int | None) -> np.ndarray:
    """Render an amount of stain, (Y, X) or (planes, Y, X) uint16, blurred and with the noise of photons."""
    from scipy.ndimage import gaussian_filter

    if planes is None:
        return _camera(rng, gaussian_filter(amount, 1.3), gain=700.0, noise=0.02, offset=_CAMERA_OFFSET)
    distance = np.abs(np.arange(planes, dtype=np.float32) - (planes - 1) / 2)[:, None, None] * _PLANE_DISTANCE / 2
    inside = np.clip(amount[None] + 0.5 - distance, 0.0, 1.0)
    return _camera(rng, gaussian_filter(inside, (0.7, 1.3, 1.3)), gain=2500.0, noise=0.02, offset=_CAMERA_OFFSET)


def _light(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uneven light, (Y, X), about 1."""
    y = np.linspace(-1.0, 1.0, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, shape[1], dtype=np.float32)[None, :]
    tilt_y, tilt_x = rng.uniform(-0.06, 0.06, 2)
    return np.asarray(rng.uniform(0.8, 1.2) * (1.0 + tilt_y * y + tilt_x * x), np.float32)


def _camera(
    rng: np.random.Generator, seen: np.ndarray, *, gain: float, noise: float, offset: float = 0.0
) -> np.ndarray:
    noisy = seen + rng.normal(0.0, noise, seen.shape)
    return np.asarray(np.clip(np.round(noisy * gain + offset), 0, 65535), np.uint16)

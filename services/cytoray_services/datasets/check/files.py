"""Reading the files of a data set, with each problem as a finding."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cytoray_analysis.errors import ImageError, ImageTooLargeError, InputError, MissingFileError, UnreadableImageError
from cytoray_analysis.images import Image, read_image, require_finite
from cytoray_analysis.images.memory import require_memory
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_services.datasets.check.findings import Finding

_COPIES = 3  # copies of the pixels of an image that its checks need


def open_file(path: Path, name: str, selection: Selection = EVERYTHING, *, labels: bool = False) -> Image | Finding:
    """Open the selection of an image or a label image, or return the finding that prevents it."""
    try:
        return read_image(path, name=name, selection=selection, labels=labels)
    except MissingFileError:
        remedy = "Restore it, or remove its row of the manifest, or the image with its name."
        return Finding("error", name, "the file does not exist", remedy, "missing-file")
    except UnreadableImageError as error:
        return damaged(name, error)
    except InputError as error:
        return Finding("error", name, error.message, error.hint or "", "wrong-axes")


def read_pixels(image: Image, name: str) -> np.ndarray | Finding:
    """Decode the pixels of an image and check that they are finite, or return a finding."""
    try:
        require_memory(_COPIES * math.prod(image.shape) * image.dtype.itemsize, name)
        pixels = image.read()
        require_finite(pixels, name)
    except UnreadableImageError as error:
        return damaged(name, error)
    except ImageTooLargeError as error:
        return Finding("error", name, error.message, error.hint or "", "too-large")
    except ImageError as error:
        return Finding("error", name, error.message, error.hint or "", "not-finite")
    return pixels


def hash_pixels(axes: str, images: Iterable[np.ndarray]) -> str:
    """Return a hash of decoded pixels, the same in every file format."""
    digest = hashlib.blake2b(axes.encode(), digest_size=16)
    for pixels in images:
        digest.update(f"{pixels.shape}{pixels.dtype}".encode())
        digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def size_of(shape: Iterable[int]) -> str:
    """Return lengths for display: ``512 × 512``."""
    return " × ".join(str(length) for length in shape)


def damaged(name: str, error: ImageError) -> Finding:
    """Return the finding for a file that cannot be decoded."""
    code = "truncated" if error.field == "bytes" else "unreadable"
    return Finding("error", name, error.message, error.hint or "", code)

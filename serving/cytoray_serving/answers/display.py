"""The input image as a picture to draw on."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from cytoray_analysis.images import Image
from cytoray_analysis.pictures import RGB, display_rgb


def picture(image: Image) -> RGB:
    """Return an image with stretched contrast, (Y, X, 3); of a volume or of frames the maximum along them."""
    return display_rgb(flat(image))


def flat(image: Image) -> NDArray[Any]:
    """Return (C, Y, X) of an image; of a volume or of frames the maximum along them."""
    if not {"T", "Z"} & set(image.axes):
        return image.select("CYX").read()
    pixels: NDArray[Any] = image.select("TCZYX").read().max(axis=(0, 2))
    return pixels

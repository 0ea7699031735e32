"""The bytes of a tile."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError
from cytoray_serving.viewer.records import Pyramid

PNG, LABELS = "image/png", "application/octet-stream"


def picture_tile(
    pixels: NDArray[Any], pyramid: Pyramid, channel: int | None, low: float | None, high: float | None
) -> bytes:
    """Encode a tile of an image as PNG.

    Parameters
    ----------
    pixels
        (C, Y, X).
    channel
        The channel of a grey picture of 8 bit; None for all channels of an RGB image, or for the only channel.
    low, high
        The values shown as black and as white; the default contrast of the channel if None.

    Raises
    ------
    RequestError
        There is no such channel, none is named, or the contrast is not finite or not in order.
    """
    import imagecodecs

    if channel is None and pyramid.rgb:
        return bytes(imagecodecs.png_encode(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)), level=1))
    if channel is None and len(pixels) > 1:
        raise RequestError("expected the channel c of the tile, got none", field="c", hint="such as ?c=0")
    index = channel or 0
    if not 0 <= index < len(pixels):
        raise RequestError(f"expected c from 0 to {len(pixels) - 1}, got {index}", field="c")
    default = pyramid.channels[index]
    black, white = default.low if low is None else low, default.high if high is None else high
    if not (np.isfinite(black) and np.isfinite(white) and black < white):
        raise RequestError(f"expected low below high, got {black:g} and {white:g}", field="low")
    return bytes(imagecodecs.png_encode(_grey(pixels[index], black, white), level=1))


def label_tile(pixels: NDArray[Any]) -> bytes:
    """Encode a tile of labels (1, Y, X): uint32, little-endian, row by row."""
    return bytes(pixels[0].astype("<u4", copy=False).tobytes())


def _grey(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    scaled = (values.astype(np.float64) - black) * (255.0 / (white - black))
    grey: NDArray[np.uint8] = np.clip(scaled + 0.5, 0, 255).astype(np.uint8)
    return grey

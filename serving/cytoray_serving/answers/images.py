"""The forms of a predicted image, such as the stain of a label-free prediction."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.images import AXES, Image, image_from_array, write_image
from cytoray_serving.answers.form import Answered, Form
from cytoray_serving.schema import ChannelRow, ImageTable


def image_tiff(answered: Answered) -> bytes:
    """Encode the channels as an OME-TIFF, float32 in the units of the training targets, with their names."""
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        path = Path(folder) / "answer.ome.tif"
        write_image(path, answer_image(answered))
        return path.read_bytes()


def channel_png(answered: Answered) -> bytes:
    """Encode the first channel as an 8-bit grey PNG, stretched for the eye; of a volume the brightest pixel along Z."""
    import imagecodecs

    from cytoray_analysis.pictures import display_rgb

    channel: NDArray[np.float32] = answered.prediction.answer[0]
    plane = channel.reshape(-1, *channel.shape[-2:]).max(axis=0)
    grey = np.ascontiguousarray(display_rgb(plane)[..., 0])
    return bytes(imagecodecs.png_encode(grey, level=1))


def channel_table(answered: Answered) -> bytes:
    """Encode the range and the mean of every channel as JSON, see :class:`cytoray_serving.schema.ImageTable`."""
    image = answer_image(answered)
    table = ImageTable(
        model=answered.model,
        warnings=answered.warnings,
        input_channels=answered.channels,
        axes=image.axes,
        shape=list(image.shape),
        seconds=dict(answered.prediction.seconds),
        channels=[
            ChannelRow(name=name, min=float(values.min()), max=float(values.max()), mean=float(values.mean()))
            for name, values in zip(image.channels, answered.prediction.answer, strict=True)
        ],
    )
    return table.model_dump_json().encode()


def answer_image(answered: Answered) -> Image:
    """Return the answer as an image with axes such as CYX or TCYX, channel names and the pixel size of what was sent.

    It carries the warnings of the answer.
    """
    values: NDArray[np.float32] = answered.prediction.answer
    axes = "".join(axis for axis in AXES if axis in answered.axes or axis == "C")
    return image_from_array(
        np.moveaxis(values, 0, axes.index("C")),
        axes,
        channels=_names(answered.predictor.bundle.spec.task.arguments, len(values)),
        pixel_size=answered.image.pixel_size,
        source="the answer",
        warnings=answered.prediction.warnings,
    )


def _names(arguments: dict[str, Any], count: int) -> tuple[str, ...] | None:
    """Return the names of the predicted channels, and of as many deviations after them where there are some."""
    names = tuple(str(name) for name in arguments.get("channels", ()))
    both = (*names, *(f"{name} deviation" for name in names))
    return both[:count] if count in (len(names), len(both)) else None


FORMS = (
    Form("tif", "image/tiff", ".ome.tif", image_tiff),
    Form("png", "image/png", ".png", channel_png),
    Form("json", "application/json", ".json", channel_table),
)

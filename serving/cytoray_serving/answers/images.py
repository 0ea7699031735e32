"""The forms of a predicted image, such as the stain of a label-free prediction."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.images import AXES, Image, image_from_array, write_image
from cytoray_serving.answers.form import Form, channels_chosen, model_answered, warning_rows
from cytoray_serving.answers.kind import FREE, AnswerKind, Progress
from cytoray_serving.schema import ChannelRow, ImageTable

if TYPE_CHECKING:
    from cytoray_analysis.predictor import Prediction, Predictor
    from cytoray_analysis.selection import Selection

_MOST_PIXELS = 2**16  # sample for the statistics of an image; its error is a hundredth of a standard deviation


def image_tiff(prediction: Prediction) -> bytes:
    """Encode the channels as an OME-TIFF, float32 in the units of the training targets, with their names."""
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        path = Path(folder) / "answer.ome.tif"
        write_image(path, answer_image(prediction))
        return path.read_bytes()


def channel_png(prediction: Prediction) -> bytes:
    """Encode the first channel as an 8-bit grey PNG with stretched contrast; of a volume the maximum along Z."""
    import imagecodecs

    from cytoray_analysis.pictures import display_rgb

    channel: NDArray[np.float32] = prediction.answer[0]
    plane = channel.reshape(-1, *channel.shape[-2:]).max(axis=0)
    grey = np.ascontiguousarray(display_rgb(plane)[..., 0])
    return bytes(imagecodecs.png_encode(grey, level=1))


def channel_table(prediction: Prediction) -> bytes:
    """Encode the range and the mean of every channel as JSON, see :class:`cytoray_serving.schema.ImageTable`."""
    image = answer_image(prediction)
    table = ImageTable(
        model=model_answered(prediction),
        warnings=warning_rows(prediction),
        input_channels=channels_chosen(prediction.image),
        axes=image.axes,
        shape=list(image.shape),
        seconds=dict(prediction.seconds),
        channels=[
            ChannelRow(name=name, min=float(values.min()), max=float(values.max()), mean=float(values.mean()))
            for name, values in zip(image.channels, prediction.answer, strict=True)
        ],
    )
    return table.model_dump_json().encode()


def answer_image(prediction: Prediction) -> Image:
    """Return the answer as an image with axes such as CYX or TCYX, channel names and the pixel size of the input.

    It has the warnings of the answer.
    """
    values: NDArray[np.float32] = prediction.answer
    axes = "".join(axis for axis in AXES if axis in prediction.axes or axis == "C")
    return image_from_array(
        np.moveaxis(values, 0, axes.index("C")),
        axes,
        channels=_names(prediction.spec.task.arguments, len(values)),
        pixel_size=prediction.image.pixel_size,
        source="the answer",
        warnings=prediction.warnings,
    )


def _names(arguments: dict[str, Any], count: int) -> tuple[str, ...] | None:
    """Return the names of the predicted channels, followed by the names of the deviations, if there are any."""
    names = tuple(str(name) for name in arguments.get("channels", ()))
    both = (*names, *(f"{name} deviation" for name in names))
    return both[:count] if count in (len(names), len(both)) else None


def summary(prediction: Prediction, megapixels: float) -> dict[str, float]:
    """Return mean, deviation and 99 % quantile of each channel."""
    numbers: dict[str, float] = {}
    for number, channel in enumerate(prediction.answer):
        # An odd stride, so that each row gives different columns.
        pixels = channel.ravel()[:: channel.size // _MOST_PIXELS | 1]
        numbers |= {
            f"channel_{number}_mean": float(pixels.mean()),
            f"channel_{number}_deviation": float(pixels.std()),
            f"channel_{number}_quantile99": float(np.quantile(pixels, 0.99)),
        }
    return numbers


def _step(
    predictor: Predictor, image: Image, objects: Any, selection: Selection, progress: Progress | None
) -> tuple[Image, Any]:
    """Return the predicted image for the next model."""
    from cytoray_analysis.each import predict_each

    prediction = predict_each(predictor, image, selection, objects)
    # Deviations, which follow the channels, are not for the next model.
    channels = prediction.answer[: len(prediction.spec.task.arguments["channels"])]
    return answer_image(replace(prediction, answer=channels)).warn(*prediction.warnings), None


IMAGES = AnswerKind(
    own=(
        Form("tif", "image/tiff", ".ome.tif", image_tiff),
        Form("png", "image/png", ".png", channel_png),
        Form("json", "application/json", ".json", channel_table, schema=ImageTable),
    ),
    arrays=lambda prediction: {"image": prediction.answer.astype(np.float32, copy=False)},
    tensors=lambda axes: {"image": ("FP32", [FREE] * (1 + axes))},
    summary=summary,
    example="-o stain.ome.tif --data-binary @image.tif",
    write_zarr=lambda path, prediction: write_image(path, answer_image(prediction)),
    step=_step,
)

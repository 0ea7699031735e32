"""What every other server of the comparison runs behind its own door: image files in, label TIFFs out, in batches.

Two ways, named by the environment variable ``COMPARED_MODE``: ``predictor`` asks our own, ``plain`` runs the network
of the bundle as the documentation of PyTorch shows (evaluation mode, fp32, inference mode), scales and decodes as our
predictor does, and so answers the same question.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import CytorayError
from cytoray_analysis.images import Image, read_image
from cytoray_analysis.model_input import prepare
from cytoray_analysis.networks import dense
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks import get_task
from cytoray_analysis.tiles import per_axis, whole

BATCH = 16  # images in a batch, at most
Answer = Callable[[Sequence[bytes]], list[bytes]]


def load_from_environment() -> Answer:
    """Load the model that ``COMPARED_BUNDLE`` names, on ``COMPARED_THREADS`` cores."""
    threads = int(os.environ["COMPARED_THREADS"])
    bundle = Bundle.load(os.environ["COMPARED_BUNDLE"])
    return {"predictor": our_predictor, "plain": plain_network}[os.environ["COMPARED_MODE"]](bundle, threads)


def our_predictor(bundle: Bundle, threads: int) -> Answer:
    """Answer with :class:`Predictor`, images of one shape together."""
    predictor = Predictor(bundle, threads=threads)
    predictor.warm_up()

    def answer(bodies: Sequence[bytes]) -> list[bytes]:
        answers = []
        for outcome in predictor.predict_batch([read(body) for body in bodies]):
            if isinstance(outcome, CytorayError):
                raise outcome
            answers.append(label_tiff(outcome.answer))
        return answers

    return answer


def plain_network(bundle: Bundle, threads: int) -> Answer:
    """Answer with the network as PyTorch's documentation shows: evaluation mode, fp32, one batch per shape."""
    torch.set_num_threads(threads)
    network = bundle.network().eval()
    stride = per_axis(dense(network).stride, 2)
    task = get_task(bundle.spec.task.name, bundle.spec.task.arguments)
    parameters = task.output.completed(bundle.spec.decode)

    def outputs(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = pixels.shape[-2:]
        margins = [(0, 0), (0, 0), (0, -height % stride[0]), (0, -width % stride[1])]
        with torch.inference_mode():
            found: NDArray[np.float32] = network(torch.from_numpy(np.pad(pixels, margins, mode="reflect"))).numpy()
        return found[..., :height, :width]

    def answer(bodies: Sequence[bytes]) -> list[bytes]:
        sources = [prepare(read(body), bundle.spec.input) for body in bodies]
        scaled = [source.read(whole(source.shape)) for source in sources]
        answers: dict[int, bytes] = {}
        for shape in {pixels.shape for pixels in scaled}:
            members = [index for index, pixels in enumerate(scaled) if pixels.shape == shape]
            for index, found in zip(members, outputs(np.stack([scaled[index] for index in members])), strict=True):
                answers[index] = label_tiff(task.decode(np.ascontiguousarray(found), parameters).values)
        return [answers[index] for index in range(len(bodies))]

    return answer


def read(body: bytes) -> Image:
    """Open an image file, one plane."""
    return read_image(body, name="the image").select("CYX")


def label_tiff(labels: NDArray[np.integer[Any]]) -> bytes:
    """Encode labels as the service does."""
    buffer = io.BytesIO()
    type_ = np.uint16 if labels.max(initial=0) <= np.iinfo(np.uint16).max else np.uint32
    tifffile.imwrite(buffer, labels.astype(type_), compression="zlib", compressionargs={"level": 1})
    return buffer.getvalue()

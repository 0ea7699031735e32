"""A network that came from elsewhere as an ONNX graph, and is run by ONNX Runtime on the CPU.

The graph is the network's one weight: its bytes, so that a bundle keeps it in safetensors like any other and loading
one still runs nothing that it carries. A graph of standard operators is data; one that asks for operators of others, or
has weights in separate files, is refused.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cytoray_analysis.errors import BundleError, PlatformError

# What the features of a network take that nothing is known of: four maps of 64 channels at full resolution.
_FEATURES_PER_PIXEL = 256
# Wider than any image: a tile with such a halo is the image.
_EVERYTHING = 2**30


class OnnxNetwork(nn.Module):
    """A dense network with one input and one output, as an ONNX graph.

    Parameters
    ----------
    inputs, outputs
        Channels of the image and of the dense output.
    size
        Bytes of the graph.
    stride
        What the sides of an input must be multiples of, in pixels along each spatial axis.
    halo
        Distance along each axis, in pixels, beyond which the input cannot change an output; None if unknown; images are
        then not divided into tiles.
    smallest
        The smallest input along each axis; smaller ones are padded with their border. The stride by default.
    activation
        What follows the graph: nothing, ``sigmoid``, or ``softmax`` over the channels.

    Raises
    ------
    ValueError
        The sizes along the axes do not belong together.
    """

    graph: Tensor

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        size: int,
        stride: Sequence[int],
        halo: Sequence[int] | None = None,
        smallest: Sequence[int] | None = None,
        activation: Literal["none", "sigmoid", "softmax"] = "none",
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.stride = tuple(stride)
        widest = (_EVERYTHING // step * step for step in self.stride)
        self.halo = tuple(widest) if halo is None else tuple(halo)
        self.smallest = self.stride if smallest is None else tuple(smallest)
        if not len(self.stride) == len(self.halo) == len(self.smallest):
            raise ValueError(f"expected a stride, halo and smallest size per axis, got {stride}, {halo}, {smallest}")
        if activation not in ("none", "sigmoid", "softmax"):
            raise ValueError(f"expected the activation none, sigmoid or softmax, got {activation!r}")
        self.activation = activation
        self.register_buffer("graph", torch.zeros(size, dtype=torch.uint8))
        self._session: Any = None

    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per input pixel, in bytes: an estimate, because a graph does not define it."""
        return 4 * (_FEATURES_PER_PIXEL + self.inputs + 2 * self.outputs)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, inputs, spatial…) to (B, outputs, spatial…); every side is a multiple of :attr:`stride`.

        Raises
        ------
        BundleError
            The graph is none, or does not take or give what was said.
        PlatformError
            ONNX Runtime is not installed.
        """
        sides = image.shape[2:]
        missing = [max(least - side, 0) for least, side in zip(self.smallest, sides, strict=True)]
        pads = [extra for after in reversed(missing) for extra in (0, after)]
        whole = functional.pad(image.float(), pads, mode="replicate") if any(missing) else image.float()
        answer = torch.from_numpy(self._run(whole.detach().cpu().contiguous()))
        if tuple(answer.shape) != (len(image), self.outputs, *whole.shape[2:]):
            raise BundleError(
                f"expected the graph to map {tuple(whole.shape)} to "
                f"{(len(image), self.outputs, *whole.shape[2:])}, got {tuple(answer.shape)}",
                field="network.arguments",
            )
        answer = answer[(slice(None), slice(None), *(slice(0, side) for side in sides))]
        if self.activation == "sigmoid":
            answer = answer.sigmoid()
        elif self.activation == "softmax":
            answer = answer.softmax(dim=1)
        return answer.to(device=image.device, dtype=image.dtype)

    def _run(self, pixels: Tensor) -> Any:
        if self._session is None:
            self._session = open_graph(self.graph.cpu().numpy().tobytes())
        return run_graph(self._session, pixels.numpy())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}  # a session is not copied; the copy opens its own


def open_graph(graph: bytes) -> Any:
    """Open an ONNX graph for running on the CPU.

    Returns
    -------
    onnxruntime.InferenceSession

    Raises
    ------
    BundleError
        It is not an ONNX graph, has weights in other files, or needs operators that ONNX Runtime does not have.
    PlatformError
        ONNX Runtime is not installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise PlatformError(
            "ONNX graphs need ONNX Runtime, which is not installed", hint="pip install 'cytoray[exchange]'"
        )
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    _refuse_files_beside(graph)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well
    options.intra_op_num_threads = torch.get_num_threads()
    refused = (states.InvalidGraph, states.InvalidProtobuf, states.InvalidArgument, states.Fail, states.NotImplemented)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except refused as error:
        raise BundleError(f"ONNX Runtime refuses the graph: {_first_line(error)}", field="weights") from error


def run_graph(session: Any, pixels: Any) -> Any:
    """Run a graph of one input and one output on float32 pixels.

    Raises
    ------
    BundleError
        It has more than one input or output, or does not take this shape.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    if len(session.get_inputs()) != 1 or len(session.get_outputs()) != 1:
        raise BundleError(
            f"expected a graph with one input and one output, got {len(session.get_inputs())} and "
            f"{len(session.get_outputs())}",
            field="weights",
        )
    try:
        (answer,) = session.run(None, {session.get_inputs()[0].name: pixels})
    except (states.InvalidArgument, states.Fail, states.RuntimeException) as error:
        shape = " × ".join(map(str, pixels.shape))
        raise BundleError(
            f"the ONNX graph does not take an input of {shape} ({math.prod(pixels.shape)} numbers): "
            f"{_first_line(error)}",
            field="weights",
        ) from error
    return answer


def _refuse_files_beside(graph: bytes) -> None:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(graph)
    except DecodeError as error:
        raise BundleError(f"expected an ONNX graph as weights: {error}", field="weights") from error
    beside = [
        part.name
        for part in _messages_in(model)
        if isinstance(part, onnx.TensorProto)
        and (part.data_location == onnx.TensorProto.EXTERNAL or part.external_data)
    ]
    if beside:
        raise BundleError(
            f"expected one ONNX file, got a graph with {len(beside)} weights in other files, such as "
            f"{beside[0][:200]!r}",
            field="weights",
            hint="save it as one file: onnx.save_model(model, path, save_as_external_data=False)",
        )


def _messages_in(message: Any) -> Iterator[Any]:
    """Yield a message of protobuf and all that it holds, by reflection: no place of a tensor is forgotten."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        yield part
        for field, value in part.ListFields():
            if field.message_type is not None:
                waiting += value if field.is_repeated else [value]


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]

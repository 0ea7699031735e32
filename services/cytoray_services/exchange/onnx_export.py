"""Export to ONNX, verified against the bundle before the file is written.

The graph is traced (``torch.onnx.export`` with ``dynamo=False``): with the newer exporter, the same networks take 5 to
48 seconds instead of about one and give graphs up to seven times as large, and the linear classifier fails.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cytoray_analysis.bundle import CARD, TEST_INPUT, Bundle
from cytoray_analysis.errors import BundleError, RequestError
from cytoray_analysis.networks import dense
from cytoray_analysis.networks.linear import LinearClassifier
from cytoray_analysis.networks.onnx_network import OnnxNetwork, open_graph, run_graph
from cytoray_analysis.tiles import per_axis
from cytoray_services.exchange.archive import appears_whole
from cytoray_services.registry.card_record import record_of

OPSET = 18
# Relative to the range of the outputs. Two implementations of float32 convolutions differ by about 1e-6.
TOLERANCE = 1e-4

EXPORTABLE = ("unet", "cnn", "linear", "resnet", "unet_encoder")


@dataclass(frozen=True)
class OnnxFacts:
    """The result of an export.

    Attributes
    ----------
    path
        The file.
    opset
        Version of the ONNX operators.
    shapes
        Inputs (batch, channels, spatial…) on which graph and bundle were compared.
    deviation
        The largest difference, relative to the range of the outputs.
    """

    path: Path
    opset: int
    shapes: tuple[tuple[int, ...], ...]
    deviation: float


def export_onnx(bundle: Bundle, target: Path, *, reference: str | None = None) -> OnnxFacts:
    """Write the network of a bundle as one ONNX file with free batch and spatial sizes.

    The graph maps ``input`` (batch, channels, spatial…) float32, scaled as in the bundle, to ``output``; the sides
    are multiples of the stride of the network. Its metadata contain the model, its digest, its task and its scores.

    Parameters
    ----------
    target
        The file; an existing one is replaced.
    reference
        Name and version in the registry, for the metadata.

    Raises
    ------
    RequestError
        Networks of this kind cannot be exported.
    BundleError
        The graph and the bundle give different outputs; nothing is written.
    """
    _refuse_kind(bundle)
    if bundle.spec.network.name == "onnx":
        graph = _graph_of_bundle(bundle)
    else:
        example = torch.from_numpy(_test_input(bundle))[None]
        graph = _with_metadata(trace_graph(_traceable(bundle.network().float()), example), bundle, reference)
    shapes, deviation = check_graph(graph, bundle)
    with appears_whole(target) as draft:
        draft.write_bytes(graph)
    return OnnxFacts(target, opset_of(graph), shapes, deviation)


def trace_graph(network: nn.Module, example: Tensor) -> bytes:
    """Trace a network into an ONNX graph with free batch and spatial sizes.

    Parameters
    ----------
    network
        A module or TorchScript module in evaluation mode.
    example
        (B, C, spatial…) float32.

    Raises
    ------
    RequestError
        An operation of the network has no ONNX counterpart.
    """
    sides = {axis: f"side{axis - 2}" for axis in range(2, example.ndim)}
    with torch.inference_mode():
        answer = network(example)
    kept = sides if answer.ndim == example.ndim else {}
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer, about sizes that are constants
        try:
            torch.onnx.export(
                network,
                (example,),
                file,  # type: ignore[arg-type] # torch's annotation lacks what its exporter without dynamo takes
                dynamo=False,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": {0: "batch"} | sides, "output": {0: "batch"} | kept},
                opset_version=OPSET,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise RequestError(
                f"the network cannot be written as ONNX: {str(error).strip().splitlines()[0]}",
                field="network",
                hint="export the bundle itself: --format bundle",
            ) from error
    return file.getvalue()


def check_graph(graph: bytes, bundle: Bundle) -> tuple[tuple[tuple[int, ...], ...], float]:
    """Compare a graph with the bundle on its test input and on other sizes.

    Returns
    -------
    shapes, deviation
        Shapes of the inputs, and the largest difference relative to the range of the outputs.

    Raises
    ------
    BundleError
        They differ by more than :data:`TOLERANCE`.
    """
    network, session = bundle.network().float(), open_graph(graph)
    activation = network.activation if isinstance(network, OnnxNetwork) else "none"
    if activation != "none":
        raise RequestError(
            f"the graph of {bundle.spec.name!r} is followed by a {activation}, which the ONNX file would not contain",
            field="format",
            hint="export the bundle itself: --format bundle",
        )
    shapes, largest = [], 0.0
    for pixels in _inputs(_test_input(bundle), dense(network).stride):
        with torch.inference_mode():
            expected = network(torch.from_numpy(pixels)).numpy()
        answer = run_graph(session, pixels)
        if answer.shape != expected.shape:
            raise BundleError(f"for an input {pixels.shape} the bundle gives {expected.shape}, ONNX {answer.shape}")
        deviation = float(np.abs(answer - expected).max()) / max(float(np.ptp(expected)), 1e-6)
        if not deviation <= TOLERANCE:
            raise BundleError(
                f"for an input {pixels.shape} the ONNX graph deviates from the bundle by {deviation:.3g} of the "
                f"output's range, allowed: at most {TOLERANCE:g}",
                field="format",
                hint="nothing was written; export the bundle itself: --format bundle",
            )
        shapes.append(pixels.shape)
        largest = max(largest, deviation)
    return tuple(shapes), largest


def opset_of(graph: bytes) -> int:
    """Return the version of the ONNX operators of a graph."""
    import onnx

    model = onnx.load_model_from_string(graph)
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _inputs(example: NDArray[np.float32], stride: int | tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
    """Yield the example, a batch of it, and noise of sizes one to three strides larger along single axes."""
    yield example[None]
    random = np.random.default_rng(0)
    yield np.stack([example, example[..., ::-1]])
    steps = per_axis(stride, example.ndim - 1)
    for axis, step in enumerate(steps):
        sides = list(example.shape[1:])
        sides[axis] += step * (axis + 1)
        yield random.random((1 + axis % 2, len(example), *sides), dtype=np.float32)


def _refuse_kind(bundle: Bundle) -> None:
    kind = bundle.spec.network.name
    if kind in (*EXPORTABLE, "onnx"):
        return
    reasons = {
        "pair": "they score pairs of objects by features that only Cytoray computes",
        "pretrained": "their trunk is defined by the library transformers, not by this package",
    }
    raise RequestError(
        f"networks of kind {kind!r} cannot be written as ONNX: {reasons.get(kind, 'their outputs are not verified')}",
        field="format",
        hint=f"export the bundle itself: --format bundle; ONNX supports {', '.join(EXPORTABLE)}",
    )


def _graph_of_bundle(bundle: Bundle) -> bytes:
    graph: Tensor = bundle.network().get_buffer("graph")
    return graph.numpy().tobytes()


def _test_input(bundle: Bundle) -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.load(bundle.folder / TEST_INPUT, allow_pickle=False).astype(np.float32)
    return array


def _with_metadata(graph: bytes, bundle: Bundle, reference: str | None) -> bytes:
    import onnx

    model = onnx.load_model_from_string(graph)
    spec = bundle.spec
    facts = {
        "name": spec.name,
        "digest": bundle.digest,
        "task": spec.task.name,
        "axes": f"B{spec.input.axes}",
        "channels": ", ".join(spec.input.channels),
        "intensity": spec.input.scaling.model_dump_json(),
        "stride": " ".join(map(str, per_axis(dense(bundle.network()).stride, len(spec.input.spatial_axes)))),
        "version": reference or "not from a registry",
    }
    metrics = record_of((bundle.folder / CARD).read_text(encoding="utf-8")).metrics
    facts |= {f"metric.{name}": repr(value) for name, value in metrics.items()}
    onnx.helper.set_model_props(model, facts)
    model.doc_string = f"{spec.name}: {spec.task.name}, exported by Cytoray from the bundle {bundle.digest}"
    return bytes(model.SerializeToString())


def _traceable(network: nn.Module) -> nn.Module:
    return TraceableLinear(network).eval() if isinstance(network, LinearClassifier) else network


class TraceableLinear(nn.Module):
    """A :class:`LinearClassifier` with matrix products instead of adaptive pooling.

    ONNX has no pooling to a fixed size. The mean over the pixels of each cell, axis by axis, is the product with a
    matrix that contains 1/n for the n pixels of a cell.
    """

    def __init__(self, network: LinearClassifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, window: Tensor) -> Tensor:
        """Map windows (B, inputs, spatial…) to logits (B, outputs)."""
        network = self.network
        coarse = window
        for axis in range(2, window.ndim):
            weights = _mean_of_cells(window.shape[axis], network.side)
            coarse = torch.matmul(coarse.transpose(axis, -1), weights.T).transpose(axis, -1)
        pixels = window.flatten(2)
        mean = pixels.mean(dim=2)
        spread = (pixels - mean.unsqueeze(2)).square().mean(dim=2).sqrt()
        values = torch.cat((coarse.flatten(1), mean, spread), dim=1)
        logits: Tensor = network.head(network.norm(values))
        return logits


def _mean_of_cells(length: Any, cells: int) -> Tensor:
    """Return the (cells, length) weights of PyTorch's adaptive pooling: cell i covers ⌊i·n/c⌋ to ⌈(i+1)·n/c⌉."""
    cell = torch.arange(cells)
    start = torch.div(cell * length, cells, rounding_mode="floor")
    stop = torch.div((cell + 1) * length + (cells - 1), cells, rounding_mode="floor")
    pixel = torch.arange(length)
    covered = (pixel >= start.unsqueeze(1)) & (pixel < stop.unsqueeze(1))
    return covered.float() / (stop - start).unsqueeze(1).float()

"""Models whose answer is their input, so that what a service answers shows what it has read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.images import IntensityScaling, IntensityStatistics


def echo_input(channels: tuple[str, ...], axes: str) -> ModelInput:
    """Return what such a model takes: stored values, not scaled, not resampled."""
    statistics = IntensityStatistics.identity(len(channels))
    return ModelInput(axes=axes, channels=channels, scaling=IntensityScaling(scope="dataset"), statistics=statistics)


def write_echo(folder: Path, name: str, channels: tuple[str, ...], axes: str) -> Path:
    """Write the bundle of a model that answers the pixels that it is given.

    Parameters
    ----------
    axes
        ``CYX`` or ``CZYX``.
    """
    count, dimensions = len(channels), len(axes) - 1
    graph = _identity(count, dimensions)
    sizes = {"stride": [1] * dimensions, "halo": [0] * dimensions, "smallest": [1] * dimensions}
    arguments = {"channels": list(channels), "offset": [0.0] * count, "scale": [1.0] * count, "dimensions": dimensions}
    spec = BundleSpec(
        name=name,
        task=TaskChoice(name="label_free", arguments=arguments),
        input=echo_input(channels, axes),
        network=NetworkChoice(name="onnx", arguments={"inputs": count, "outputs": count, "size": len(graph), **sizes}),
    )
    weights = {"graph": torch.frombuffer(bytearray(graph), dtype=torch.uint8)}
    sample = np.random.default_rng(0).random((count, *(8,) * dimensions), dtype=np.float32)
    write_bundle(folder / name, spec, weights, test_input=sample, card="# A model for tests\n")
    return folder / name


def _identity(count: int, dimensions: int) -> bytes:
    sides = ["z", "y", "x"][-dimensions:]
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["b", count, *sides]) for end in ("in", "out")]
    made = helper.make_graph([helper.make_node("Identity", ["in"], ["out"])], "echo", ends[:1], ends[1:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())

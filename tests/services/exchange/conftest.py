"""Bundles of all kinds that exchange has to carry, small enough to export in less than a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.images.intensity import IntensityScaling, IntensityStatistics
from cytoray_analysis.networks import build_network

WINDOW = ("red", "green")
CLASSES = {"classes": ["a", "b", "c"]}
FLAT = {"inputs": 2, "outputs": 3}
SOLID = {"dimensions": 3, "inputs": 2, "outputs": 3}
STATISTICS = IntensityStatistics(low=(90.0,), high=(900.0,), mean=(400.0,), std=(150.0,), smallest_range=(60.0,))

# task, its arguments, input, network, its arguments, shape of the test input
KINDS: dict[str, tuple[str, dict[str, Any], ModelInput, str, dict[str, Any], tuple[int, ...]]] = {
    "unet": (
        "segmentation",
        {},
        ModelInput(pixel_size={"Y": 0.5, "X": 0.5}),
        "unet",
        {"inputs": 1, "outputs": 3, "widths": [4, 8]},
        (1, 32, 24),
    ),
    "unet3d": (
        "semantic_segmentation",
        {"dimensions": 3},
        ModelInput(axes="CZYX", scaling=IntensityScaling(method="zscore")),
        "unet",
        {"dimensions": 3, "inputs": 1, "outputs": 2, "widths": [4, 8], "strides": [[1, 2, 2], [2, 2, 2]]},
        (1, 4, 16, 12),
    ),
    "labelfree": (
        "label_free",
        {"channels": ["dna"], "offset": [100.0], "scale": [0.01]},
        ModelInput(scaling=IntensityScaling(scope="dataset"), statistics=STATISTICS),
        "unet",
        {"inputs": 1, "outputs": 1, "widths": [4, 8]},
        (1, 24, 24),
    ),
    **{
        f"{name}{'3d' if solid else ''}": (
            "classification",
            CLASSES,
            ModelInput(axes="CZYX" if solid else "CYX", channels=WINDOW, window=(6, 12, 10) if solid else (20, 24)),
            name,
            (SOLID if solid else FLAT) | extra,
            (2, 6, 12, 10) if solid else (2, 20, 24),
        )
        for solid in (False, True)
        for name, extra in (
            ("cnn", {"widths": [4, 8]}),
            ("linear", {"side": 4}),
            ("resnet", {"widths": [4, 8], "blocks": 1, "mirrors": True}),
            ("unet_encoder", {"widths": [4, 8]}),
        )
    },
}


def make_bundle(folder: Path, kind: str = "unet", **provenance: Any) -> Bundle:
    task, task_arguments, model_input, network, arguments, shape = KINDS[kind]
    torch.manual_seed(0)
    spec = BundleSpec(
        name=kind.replace("_", "-"),
        task=TaskChoice(name=task, arguments=task_arguments),
        input=model_input,
        network=NetworkChoice(name=network, arguments=arguments),
        provenance=provenance,
    )
    weights = build_network(network, arguments).state_dict()
    for name, values in weights.items():  # a fresh norm changes nothing; these ones do
        if name.endswith("running_mean"):
            values.uniform_(-0.2, 0.2)
        elif name.endswith("running_var"):
            values.uniform_(0.5, 2.0)
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    return write_bundle(folder, spec, weights, test_input=pixels, card=f"# {kind}\n")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Run the test for every kind of network, in two and three dimensions."""
    return str(request.param)


@pytest.fixture
def bundle_of(tmp_path: Path) -> Callable[[str], Bundle]:
    return lambda kind: make_bundle(tmp_path / f"bundle-{kind}", kind)

"""A segmentation model with random weights and many objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.networks import build_network


def random_segmenter(folder: Path, expected: ModelInput, channels: int) -> Bundle:
    """Write a model whose output is cell-like blobs: it has learnt nothing, and is as easily torn at borders of tiles.

    Parameters
    ----------
    expected, channels
        What it takes, and how many channels that are.
    """
    torch.manual_seed(3)
    arguments = {"inputs": channels, "outputs": 3, "widths": [8, 16, 16]}
    network = build_network("unet", arguments)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var = torch.full_like(module.weight.data, 0.05)
    spec = BundleSpec(
        name="random",
        task=TaskChoice(name="segmentation"),
        input=expected,
        network=NetworkChoice(arguments=arguments),
        decode={"reach": 12.0, "votes": 3.0, "smallest": 4.0},
    )
    blank = np.zeros((channels, 32, 32), np.float32)
    return write_bundle(folder / "random", spec, network.state_dict(), test_input=blank, card="# random\n")

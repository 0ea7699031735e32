"""Start from the weights of another model: registered, in a folder, or from a hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import nn

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.networks import NETWORKS
from cytoray_analysis.networks.classifier import Classifier, freeze_trunk
from cytoray_analysis.networks.transfer import load_pretrained
from cytoray_services.registry import load_bundle
from cytoray_services.settings import Settings
from cytoray_training.adamw import Trunk
from cytoray_training.recipe import Start

REGISTRY = "registry:"


@dataclass(frozen=True)
class StartWeights:
    """Where weights come from, found out before any worker starts.

    Attributes
    ----------
    source
        A bundle folder, a transformers folder, or a hub name.
    identity
        What is written down about it: model and digest of a bundle, or the source itself.
    rate
        Learning rate of what was taken over, over that of the rest; 0 freezes it.
    arguments
        What the source decides about the network that takes its weights, such as a transformers configuration.
    """

    source: str
    identity: str
    rate: float
    arguments: Mapping[str, Any] = field(default_factory=dict)


def find_start(start: Start, network: str, settings: Settings) -> StartWeights:
    """Find the weights that a recipe starts from.

    Parameters
    ----------
    network
        Name of the network that takes them.

    Raises
    ------
    ModelNotFoundError
        The registry has no such model.
    BundleError, MissingFileError
        There is no such source, or nothing that the network could be built after.
    """
    rate = 0.0 if start.trunk == "frozen" else start.rate
    folder = Path(start.source).expanduser()
    if start.source.startswith(REGISTRY):
        bundle, version = load_bundle(start.source.removeprefix(REGISTRY), settings)
        name = version.reference if version else bundle.spec.name
        return StartWeights(str(bundle.folder), f"{name} {bundle.digest}", rate)
    if (folder / "bundle.yaml").is_file():
        bundle = Bundle.load(folder)
        return StartWeights(str(folder), f"{bundle.spec.name} {bundle.digest}", rate)
    arguments_from = getattr(NETWORKS.get(network), "arguments_from", None)
    return StartWeights(start.source, start.source, rate, arguments_from(start.source) if arguments_from else {})


def take_over(start: StartWeights, network: nn.Module) -> Trunk:
    """Put the weights into a fresh network, and return which part of it they are.

    Raises
    ------
    BundleError
        None of them fits.
    """
    load_pretrained(start.source, network)
    if start.rate == 0:
        freeze_trunk(network)
    return Trunk(cast(Classifier, network).trunk, start.rate)

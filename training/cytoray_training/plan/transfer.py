"""Initial weights from another model: registered, in a folder, or from a hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import nn

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import RecipeError
from cytoray_analysis.networks import NETWORKS
from cytoray_analysis.networks.classifier import Classifier, freeze_trunk
from cytoray_analysis.networks.transfer import load_pretrained
from cytoray_analysis.networks.unet import UNet
from cytoray_services.datasets.remote.data_uris import folder_of_claim
from cytoray_services.datasets.remote.within import require_folder_within
from cytoray_services.registry import load_bundle
from cytoray_services.settings import Settings
from cytoray_training.engines.adamw import Trunk
from cytoray_training.recipe import REGISTRY, Start

_SHAPE = frozenset({"widths", "strides", "finish"})  # arguments of a U-Net that its weights depend on


@dataclass(frozen=True)
class StartWeights:
    """The source of initial weights, determined before any worker starts.

    Attributes
    ----------
    source
        A bundle folder, a transformers folder, or a hub name.
    identity
        Recorded identity: model and digest of a bundle, or the source itself.
    rate
        Learning rate of the weights taken over, relative to the rest; 0 freezes them.
    arguments
        Arguments of the network that follow from the source, such as a transformers configuration or a U-Net's widths.
    decode
        Decode parameters of the source, with which fitting begins; empty if it answers another question.
    """

    source: str
    identity: str
    rate: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    decode: Mapping[str, float] = field(default_factory=dict)


def find_start(
    start: Start, network: str, task: str, settings: Settings, *, within: Sequence[Path | str] | None = None
) -> StartWeights:
    """Find the initial weights of a recipe.

    Parameters
    ----------
    network, task
        Names of the network that uses them, and of its task.
    within
        Only files in these folders are read; None: any folder.

    Raises
    ------
    ModelNotFoundError
        The registry has no such model.
    BundleError, MissingFileError
        The source does not exist, or does not describe the network.
    ForbiddenError
        It is outside these folders.
    RecipeError
        A U-Net has no part to freeze.
    """
    if network == "unet" and start.trunk == "frozen":
        raise RecipeError(
            "expected trunk: finetune for a unet, whose weights are all taken over, got frozen",
            field="model.start.trunk",
            hint="lower model.start.rate to change them less",
        )
    rate = 0.0 if start.trunk == "frozen" else start.rate
    place = start.place
    source = str(place or start.source)
    folder = folder_of_claim(source) if source.startswith("pvc://") else Path(source).expanduser()
    if place is not None:
        source = str(folder)
    if start.source.startswith(REGISTRY):
        bundle, version = load_bundle(start.source.removeprefix(REGISTRY), settings)
        name = version.reference if version else bundle.spec.name
        return _from_bundle(bundle, name, rate, network, task)
    if within is not None and (place is not None or folder.exists()):
        require_folder_within(folder, within)
    if (folder / "bundle.yaml").is_file():
        bundle = Bundle.load(folder)
        return _from_bundle(bundle, bundle.spec.name, rate, network, task)
    arguments_from = getattr(NETWORKS.get(network), "arguments_from", None)
    return StartWeights(source, start.source, rate, arguments_from(source) if arguments_from else {})


def _from_bundle(bundle: Bundle, name: str, rate: float, network: str, task: str) -> StartWeights:
    spec = bundle.spec
    same = network == spec.network.name == "unet"
    shape = {key: value for key, value in spec.network.arguments.items() if key in _SHAPE} if same else {}
    if same:
        shape.setdefault("finish", "cells")  # of bundles from before this choice
    decode = spec.decode if task == spec.task.name else {}
    return StartWeights(str(bundle.folder), f"{name} {bundle.digest}", rate, shape, decode)


def take_over(start: StartWeights, network: nn.Module) -> Trunk:
    """Load the weights into a new network, and return which part of it they are.

    Raises
    ------
    BundleError
        None of them fits.
    """
    left = load_pretrained(start.source, network).left
    if start.rate == 0:
        freeze_trunk(network)
    trunk = cast(Classifier | UNet, network).trunk
    if isinstance(network, UNet):  # what is new learns at the full rate
        trunk = tuple(name for name in trunk if not any(one.startswith(f"{name}.") for one in left))
    return Trunk(trunk, start.rate)

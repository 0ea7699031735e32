"""Start a network from weights that were trained on something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cytoray_analysis.errors import BundleError, MissingFileError
from cytoray_analysis.networks.classifier import Classifier
from cytoray_analysis.networks.pretrained import PretrainedTrunk, hub_weights
from cytoray_analysis.networks.unet import UNet

_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Transfer:
    """What of a network's trunk came from elsewhere.

    Attributes
    ----------
    loaded
        Names of the weights and statistics that were taken over, as the network calls them.
    adapted
        Those of `loaded` that had another number of image channels.
    left
        Names in the trunk for which the source had nothing of the same name and shape; they start fresh.
    """

    loaded: tuple[str, ...]
    adapted: tuple[str, ...]
    left: tuple[str, ...]


def load_pretrained(source: str | Path | Mapping[str, Tensor], network: nn.Module) -> Transfer:
    """Load trained weights into the trunk of a network; the head of a classifier stays untrained.

    Parameters
    ----------
    source
        Tensors by name, as a network of this package calls them; a bundle folder; or, for a
        :class:`~cytoray_analysis.networks.pretrained.PretrainedTrunk`, a model hub's name or a folder that transformers
        wrote.
    network
        A :class:`~cytoray_analysis.networks.classifier.Classifier` or a :class:`~cytoray_analysis.networks.unet.UNet`,
        changed in place. Weights match by name and shape; the entrance is also adapted to another number of image
        channels: see :func:`adapt_entrance`.

    Raises
    ------
    BundleError
        The network has no trunk, nothing of the source fits it, or its weights are damaged.
    MissingFileError
        Neither the hub nor the disk has such a source.
    """
    if not isinstance(network, Classifier | UNet) or not network.trunk:
        raise BundleError(
            f"expected a network with a trunk to start from other weights, got {type(network).__name__}",
            field="model.start",
            hint="choose unet, cnn, resnet, unet_encoder or pretrained",
        )
    tensors = _tensors(source, network)
    loaded, adapted, left = [], [], []
    prefixes = tuple(f"{name}." for name in network.trunk)
    with torch.no_grad():
        for name, own in network.state_dict(keep_vars=True).items():
            if not name.startswith(prefixes):
                continue
            found = tensors.get(name)
            if found is not None and name == network.entrance and found.shape != own.shape:
                found = adapt_entrance(found, own, network.channels)
                adapted += [name] if found is not None else []
            if found is None or found.shape != own.shape:
                left.append(name)
                continue
            own.copy_(found)
            loaded.append(name)
    if not any(name in dict(network.named_parameters()) for name in loaded):
        raise BundleError(
            f"expected weights that fit, found none in {_name(source)} for the trunk of a {type(network).__name__}",
            field="model.start",
            hint="network and widths must be those of the source; a U-Net's trunk fits unet_encoder",
        )
    return Transfer(tuple(loaded), tuple(adapted), tuple(left))


def adapt_entrance(weight: Tensor, like: Tensor, inputs: int) -> Tensor | None:
    """Change the number of image channels that a first convolution takes.

    The weights of all old channels are added up and shared evenly among the new ones, so that a grey image, repeated
    over the channels, gets the answer that it got before.

    Parameters
    ----------
    weight
        (O, old channels · P, kernel…), P > 1 where the pixels of a cell are channels.
    like
        (O, inputs · P, kernel…), the weight to replace.
    inputs
        New channels.

    Returns
    -------
    Tensor or None
        Of the shape of `like`; None where more than the number of channels differs.
    """
    if weight.ndim != like.ndim or weight.shape[0] != like.shape[0] or weight.shape[2:] != like.shape[2:]:
        return None
    patch = like.shape[1] // inputs
    if weight.shape[1] % patch:
        return None
    outputs, _, *kernel = weight.shape
    summed = weight.reshape(outputs, -1, patch, *kernel).sum(dim=1, keepdim=True) / inputs
    return summed.expand(-1, inputs, *(-1,) * (weight.ndim - 1)).reshape(like.shape)


def _name(source: str | Path | Mapping[str, Tensor]) -> str:
    return "the given weights" if isinstance(source, Mapping) else str(source)


def _tensors(source: str | Path | Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
    if isinstance(source, Mapping):
        return source
    weights = Path(source) / _WEIGHTS
    if not weights.is_file():
        if not isinstance(network, PretrainedTrunk):
            raise MissingFileError(
                f"expected a bundle folder, found no {_WEIGHTS} in {str(source)!r}",
                field="model.start",
                hint="weights of a model hub require the network 'pretrained'",
            )
        return hub_weights(source)
    try:
        return load_file(weights)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{weights} is not a safetensors file: {error}", field="model.start") from error

"""Networks by name: plain ``nn.Module`` classes that declare ``stride`` and ``halo``.

No layer looks at the whole image, so that a prediction does not depend on how the image was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from torch import nn

from cytoray_analysis.errors import BundleError
from cytoray_analysis.networks.cnn import CNN
from cytoray_analysis.networks.fusion import fuse_batch_norm
from cytoray_analysis.networks.linear import LinearClassifier
from cytoray_analysis.networks.onnx_network import OnnxNetwork
from cytoray_analysis.networks.overlap import OverlapThenDistance
from cytoray_analysis.networks.pair_network import PairNetwork
from cytoray_analysis.networks.pretrained import PretrainedTrunk
from cytoray_analysis.networks.resnet import ResNet, UNetEncoder
from cytoray_analysis.networks.threshold import Threshold
from cytoray_analysis.networks.unet import UNet


class DenseNetwork(Protocol):
    """What tiling needs to know of a network: its stride and halo, for all spatial axes or along each."""

    stride: int | tuple[int, ...]
    halo: int | tuple[int, ...]

    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per input pixel, in bytes, for features of `item` bytes."""
        ...


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "linear": LinearClassifier,
    "cnn": CNN,
    "resnet": ResNet,
    "unet_encoder": UNetEncoder,
    "pretrained": PretrainedTrunk,
    "pair": PairNetwork,
    "overlap": OverlapThenDistance,
    "threshold": Threshold,
    "onnx": OnnxNetwork,
}


def build_network(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network with fresh weights.

    Raises
    ------
    BundleError
        The name is not one of :data:`NETWORKS`, or the arguments do not fit.
    """
    if name not in NETWORKS:
        raise BundleError(f"expected one of the networks {sorted(NETWORKS)}, got {name!r}", field="network.name")
    try:
        return NETWORKS[name](**arguments)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise BundleError(
            f"network {name!r} cannot be built with {dict(arguments)}: {error}", field="network.arguments"
        ) from error


def dense(network: nn.Module) -> DenseNetwork:
    """View a network as its properties for tiling."""
    return cast(DenseNetwork, network)


__all__ = ["NETWORKS", "DenseNetwork", "UNet", "build_network", "dense", "fuse_batch_norm"]

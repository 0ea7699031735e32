"""What every network has in common that says which class a cell is: a trunk that sees, and a head that decides.

The trunk's weights can come from elsewhere, be held still, or learn at a lower rate; the head is always new.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Classifier(nn.Module, ABC):
    """A network that maps the window around a cell to one logit per class.

    Attributes
    ----------
    trunk
        Names of the children in the trunk; the rest is the head. Empty without a trunk.
    entrance
        Name of the weight that the image's channels meet first, whose inputs transfer adapts.
    head
        What maps the trunk's feature maps to logits.
    dimensions, inputs
        Spatial axes and channels of a window.
    mirrors
        Whether an answer is the mean over the window and its mirror images along Y, X and both. Four times the work;
        for cells that have no right way up.
    """

    trunk: ClassVar[tuple[str, ...]] = ()
    entrance: str = ""
    mirrors: bool = False
    head: nn.Module
    dimensions: int
    inputs: int

    @property
    def channels(self) -> int:
        """Channels that the entrance takes."""
        return self.inputs

    @property
    def stride(self) -> tuple[int, ...]:
        """One pixel along each axis: windows of any size fit."""
        return (1,) * self.dimensions

    @property
    def halo(self) -> tuple[int, ...]:
        """No pixel along each axis: a window is answered as a whole."""
        return (0,) * self.dimensions

    @abstractmethod
    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per input pixel, in bytes, for features of `item` bytes."""

    @abstractmethod
    def features(self, window: Tensor) -> Tensor:
        """Map windows (B, inputs, spatial…) to the trunk's feature maps (B, K, coarser spatial…)."""

    def classify(self, features: Tensor) -> Tensor:
        """Map feature maps to logits (B, outputs)."""
        logits: Tensor = self.head(features)
        return logits

    def forward(self, window: Tensor) -> Tensor:
        """Map windows (B, inputs, spatial…) to logits (B, outputs)."""
        if self.training or not self.mirrors:
            return self.classify(self.features(window))
        views = (window, window.flip(-1), window.flip(-2), window.flip((-2, -1)))
        return torch.stack([self.classify(self.features(view)) for view in views]).mean(dim=0)

    def train(self, mode: bool = True) -> Classifier:
        """Switch to training, except for trunk parts without trainable parameters: their statistics also stay fixed."""
        super().train(mode)
        for name in self.trunk:
            part = self.get_submodule(name)
            if mode and not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self


def trunk_parameters(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters that belong to the trunk of a :class:`Classifier`; none of other networks."""
    prefixes = tuple(f"{name}." for name in getattr(network, "trunk", ()))
    return tuple(name for name, _ in network.named_parameters() if name.startswith(prefixes))


def freeze_trunk(network: nn.Module) -> None:
    """Hold the trunk still: its parameters take no gradient, its batch norms and dropouts stay in evaluation mode."""
    names = set(trunk_parameters(network))
    for name, parameter in network.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    network.train(network.training)


class PooledHead(nn.Module):
    """Mean over the window, a norm (none by default), dropout, one linear layer."""

    def __init__(self, features: int, outputs: int, dropout: float, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = norm or nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Map feature maps (B, K, spatial…) to logits (B, outputs)."""
        logits: Tensor = self.linear(self.dropout(self.norm(features.flatten(2).mean(2))))
        return logits


def max_pool(features: Tensor, step: Sequence[int]) -> Tensor:
    """Coarsen the spatial axes by a factor each, rounding up, so that an axis of one pixel stays."""
    pool = functional.max_pool2d if len(step) == 2 else functional.max_pool3d
    return pool(features, tuple(step), ceil_mode=True)

"""The interface of training examples for the cache and the sampler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cytoray_analysis.augmentation import Augmentation
from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.images import Image


@dataclass(frozen=True, eq=False)
class Example:
    """The cached data of one labelled item.

    Attributes
    ----------
    pixels
        (C, spatial…) of any real type, as the model input but not scaled; or features (F, N).
    truth
        Labels int32 (spatial…); an image float32 (K, spatial…); cells float32 (n, 1 + 2 d): truth, then start and stop
        of the box along each axis; or links int32 (M, N).
    scaled
        Whether `pixels` enter the network unchanged.
    """

    pixels: NDArray[Any]
    truth: NDArray[Any]
    scaled: bool = False


@dataclass(frozen=True, eq=False)
class Places:
    """The places of one example that can be sampled.

    Attributes
    ----------
    weights
        (n,) sampling weight of each place, relative to all others.
    classes
        (n,) class of each, if there are classes to balance.
    """

    weights: NDArray[np.float64]
    classes: NDArray[np.int64] | None = None


class ScaledPixels(Protocol):
    """Pixels of an example, scaled when they are read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape."""
        ...

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        """Return scaled pixels of a region, (C, spatial…) float32."""
        ...


class Examples(Protocol):
    """One kind: pixels of an image, cells cut from it, links between frames.

    Attributes
    ----------
    leading_axis
        The axis before the spatial axes of a model's input: channels or time.
    windowed
        Whether the input of the network is a window of fixed size.
    """

    leading_axis: str
    windowed: bool

    def dimensions(self, spatial: int) -> int:
        """Return the number of axes of a crop, given that of the images."""
        ...

    def inputs(self, model_input: ModelInput) -> int:
        """Return the number of channels that enter the network."""
        ...

    def cut(self, image: Image, truth: Any, objects: Any, model_input: ModelInput) -> Iterator[Example]:
        """Turn a labelled item into cached data."""
        ...

    def places(self, truth: NDArray[Any]) -> Places:
        """Return the places of an example that can be sampled."""
        ...

    def window(
        self,
        pixels: ScaledPixels,
        truth: NDArray[Any],
        place: int,
        chance: NDArray[np.float64],
        crop: tuple[int, ...],
        augmentation: Augmentation,
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Read the pixels for one crop: larger than `crop` if it will be rotated and zoomed.

        Parameters
        ----------
        place
            Index in :meth:`places`.
        chance
            (d,) random numbers from 0 to 1 for the exact position.
        """
        ...

    def vary(
        self,
        images: Tensor,
        truth: Tensor,
        crop: tuple[int, ...],
        augmentation: Augmentation,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Augment a batch of windows: (B, C, crop…) float32 and the truth for the task's ``encode``."""
        ...


def centre_within(chance: Sequence[float], shape: Sequence[int], crop: Sequence[int], overhang: float) -> list[int]:
    """Place a crop so that at most a share of it hangs over the border of the image."""
    centre = []
    for part, length, side in zip(chance, shape, crop, strict=True):
        margin = min(side * (0.5 - overhang), length / 2)
        centre.append(int(margin + part * (length - 2 * margin)))
    return centre

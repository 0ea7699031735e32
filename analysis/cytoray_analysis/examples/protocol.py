"""What every kind of training example offers the cache and the sampler."""

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
    """What is kept of one labelled item.

    Attributes
    ----------
    pixels
        (C, spatial…) of any real type, as the model sees it but not scaled; or features (F, N).
    truth
        Labels int32 (spatial…); an image float32 (K, spatial…); cells float32 (n, 1 + 2 d): class, then where the
        box begins and ends along each axis; or links int32 (M, N).
    scaled
        Whether `pixels` enter the network as they are.
    """

    pixels: NDArray[Any]
    truth: NDArray[Any]
    scaled: bool = False


@dataclass(frozen=True, eq=False)
class Places:
    """What may be drawn from one example.

    Attributes
    ----------
    weights
        (n,) how often each place is drawn, relative to all others.
    classes
        (n,) the class of each, where there are classes to balance.
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
        What comes before the spatial axes in what a model takes: channels or time.
    windowed
        Whether the network sees windows of one fixed size.
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
        """Turn a labelled item into what the cache keeps."""
        ...

    def places(self, truth: NDArray[Any]) -> Places:
        """Say what may be drawn from an example."""
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
        """Read what is needed for one crop: larger than `crop` where it is to be turned and zoomed.

        Parameters
        ----------
        place
            Which of :meth:`places`.
        chance
            (d,) random numbers from 0 to 1 that decide where exactly.
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
        """Augment a batch of windows: (B, C, crop…) float32 and the truth as the task's ``encode`` takes it."""
        ...


def centre_within(chance: Sequence[float], shape: Sequence[int], crop: Sequence[int], overhang: float) -> list[int]:
    """Place a crop so that at most a share of it hangs over the border of the image."""
    centre = []
    for part, length, side in zip(chance, shape, crop, strict=True):
        margin = min(side * (0.5 - overhang), length / 2)
        centre.append(int(margin + part * (length - 2 * margin)))
    return centre

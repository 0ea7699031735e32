"""What a task is: how truth becomes a training target, and dense outputs become answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Parameters = Mapping[str, float]


@dataclass(frozen=True)
class DenseOutput:
    """The form of a task's dense outputs.

    Attributes
    ----------
    channels
        Channels that the network must give.
    candidates
        Decode parameters, and the values that fitting tries for each; the first is the default.
    margin
        Given decode parameters, how far from a pixel the outputs may lie that change its answer, in pixels.
    """

    channels: int
    candidates: Mapping[str, tuple[float, ...]]
    margin: Callable[[Parameters], int]

    def defaults(self) -> dict[str, float]:
        """Return the first candidate of each parameter."""
        return {name: values[0] for name, values in self.candidates.items()}


@dataclass(frozen=True)
class Block:
    """Where a block of dense outputs lies in its image: where it begins, and the image's shape."""

    origin: tuple[int, ...]
    frame: tuple[int, ...]


@dataclass(frozen=True)
class Decoded:
    """The answer for one block.

    Attributes
    ----------
    values
        Per pixel: an object's number (1 to n, 0 for none), or whatever the task predicts.
    identities
        Where numbers name objects: (n + 1,) their identity in the whole image, entry 0 being 0. Blocks of one
        image agree on it.
    """

    values: NDArray[Any]
    identities: NDArray[np.int64] | None = None


class Task(Protocol):
    """Five members; nothing else in the system asks which task it has."""

    output: DenseOutput

    def encode(self, truth: Tensor) -> Tensor:
        """Turn truth (B, spatial…), −1 where unknown, into the target of the loss (B, K, spatial…) float32."""
        ...

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of outputs (B, channels, spatial…) float32, a scalar."""
        ...

    def decode(self, outputs: NDArray[np.float32], parameters: Parameters, block: Block | None = None) -> Decoded:
        """Turn dense outputs (channels, spatial…) into an answer; `block` is the whole image by default."""
        ...

    def score(self, answers: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]]) -> dict[str, float]:
        """Score answers against truths of the same images, pooled; the first metric is the one to maximise."""
        ...

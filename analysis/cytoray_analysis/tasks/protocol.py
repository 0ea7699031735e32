"""What a task is: how truth becomes a training target, and outputs of a network become answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cytoray_analysis.tasks.loss import Loss

Parameters = Mapping[str, float]
Per = Literal["pixel", "cell", "link"]
TruthKind = Literal["labels", "image", "class", "lineage"]


def no_margin(parameters: Parameters) -> tuple[int, ...] | int:
    """Decode every pixel by itself."""
    return 0


@dataclass(frozen=True)
class Output:
    """The form of a task's outputs.

    Attributes
    ----------
    per
        What one answer is about: a pixel of an image, a cell cut from it, or a link between two frames of a movie.
    truth
        What a data set must give, and what answers are: instance (or class) labels per pixel, an image, a class per
        cell, or a lineage.
    channels
        Channels that the network must give.
    metrics
        Names of all scores, the one to maximise first.
    candidates
        Decode parameters, and the values that fitting tries for each; the first is the default.
    margin
        Per pixel only: given decode parameters, how far from a pixel the outputs may lie that change its answer, in
        pixels, for all axes or along each.
    objective
        What fitting maximises, given answers and truths; None for the mean of all scores, so that no single threshold
        is favoured.
    calibration
        Fits further parameters on what was decoded with the fitted ones, given its truths, so that confidences are
        probabilities; None where there is nothing to fit.
    numbered
        Whether the numbers of a label image count objects; False where they are classes.
    """

    per: Per
    truth: TruthKind
    channels: int
    metrics: tuple[str, ...]
    candidates: Mapping[str, tuple[float, ...]]
    margin: Callable[[Parameters], tuple[int, ...] | int] = no_margin
    objective: Callable[[Sequence[Any], Sequence[Any]], float] | None = None
    calibration: Callable[[Sequence[Decoded], Sequence[Any]], dict[str, float]] | None = None
    numbered: bool = True

    @property
    def metric(self) -> str:
        """The score to maximise."""
        return self.metrics[0]

    def defaults(self) -> dict[str, float]:
        """Return the first candidate of each parameter."""
        return {name: values[0] for name, values in self.candidates.items()}


@dataclass(frozen=True)
class Block:
    """Where a block of dense outputs lies in its image: where it begins, and the image's shape."""

    origin: tuple[int, ...]
    frame: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Decoded:
    """The answer for one item, or for one block of an image.

    Attributes
    ----------
    values
        Per pixel: an object's number (1 to n, 0 for none), or whatever the task predicts, channels first; per cell:
        its probabilities; for a movie: its lineage.
    identities
        Where numbers name objects: (n + 1,) their identity in the whole image, entry 0 being 0. Blocks of one
        image agree on it.
    confidence
        Where numbers name objects: (n + 1,) float32 how sure each is, 0 to 1; entry 0 means nothing.
    """

    values: Any
    identities: NDArray[np.int64] | None = None
    confidence: NDArray[np.float32] | None = None


class Task(Protocol):
    """Five members, and the kind of truth that the class as such stands for; nothing else asks which task it has."""

    truth: ClassVar[TruthKind]
    output: Output

    def encode(self, truth: Tensor) -> Tensor:
        """Turn a batch of truths into the target of the loss.

        Per pixel: (B, spatial…) integer labels, −1 unknown, or (B, K, spatial…) float32 images, NaN unknown.
        Per cell: (B,) int64 classes, −1 unknown. Per link: (B, M, N) int64, −1 unknown.
        """
        ...

    @property
    def loss(self) -> Loss:
        """The mean loss: ``loss(outputs, target)`` is a scalar, and that of a batch the sum over its parts.

        Outputs are float32, (B, channels, spatial…) per pixel, (B, channels) per cell, (B, channels, N) per link.
        """
        ...

    def decode(self, outputs: Any, parameters: Parameters, block: Block | None = None) -> Decoded:
        """Turn the outputs for one item into an answer; `block` is the whole image by default."""
        ...

    def score(self, answers: Sequence[Any], truths: Sequence[Any]) -> dict[str, float]:
        """Score answers against truths of the same items, pooled.

        The scores are some of ``output.metrics``, in that order. A score with nothing to count, such as the recall of
        images without an object, is absent: it is neither perfect nor bad.
        """
        ...

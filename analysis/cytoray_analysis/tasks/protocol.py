"""The definition of a task: from truth to training target, and from outputs of a network to answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cytoray_analysis.cells import Cells, CellValues
from cytoray_analysis.kinds import Per, TaskKind, TruthKind
from cytoray_analysis.tasks.loss import Loss

Parameters = Mapping[str, float]
Scale = tuple[float, ...] | None


def no_margin(parameters: Parameters, scale: Scale = None) -> tuple[int, ...] | int:
    """Decode every pixel separately."""
    return 0


@dataclass(frozen=True)
class NetworkAlone:
    """What a user of the network without Cytoray must know of its outputs, as in a package of the BioImage Model Zoo.

    Attributes
    ----------
    names
        Of the channels of the outputs; empty where they have none.
    softmax
        Whether a softmax over the channels gives what the outputs mean.
    linear
        Gain and offset of each channel that give what the outputs mean; None for none.
    note
        Given decode parameters and the size of the window around a cell, what else must be done.
    tag
        What the task is called there; None where its own name will do.
    """

    names: tuple[str, ...] = ()
    softmax: bool = False
    linear: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    note: Callable[[Parameters, tuple[int, ...]], str] | None = None
    tag: str | None = None


@dataclass(frozen=True)
class Output:
    """The form of a task's outputs.

    Attributes
    ----------
    kind
        Of the task.
    channels
        Channels that the network must give.
    metrics
        Names of all scores, the one to maximise first.
    candidates
        Decode parameters, and the values that fitting tries for each; the first is the default.
    earlier
        Values of decode parameters that models of earlier versions do not state, and decode with.
    gain
        How much better the objective must be for fitting to leave a value; less is chance.
    margin
        Per pixel only: given decode parameters and the scale of a :class:`Block`, how far from a pixel the outputs may
        lie that change its answer, in pixels, for all axes or along each.
    objective
        What fitting maximises, given answers and truths; None for the mean of all scores, so that no single threshold
        is favoured.
    calibration
        Fits further parameters on what was decoded with the fitted ones, given its truths, so that confidences are
        probabilities; None where there is nothing to fit.
    numbered
        Whether the numbers of a label image count objects; False where they are classes.
    of_cells
        Per cell only: given what was decoded of N cells, and where they are, their answer; it has ``values`` and
        ``cells``.
    alone
        What the outputs are to those who have the network only.
    """

    kind: TaskKind
    channels: int
    metrics: tuple[str, ...]
    candidates: Mapping[str, tuple[float, ...]]
    earlier: Mapping[str, float] = field(default_factory=dict)
    gain: float = 0.0
    margin: Callable[[Parameters, Scale], tuple[int, ...] | int] = no_margin
    objective: Callable[[Sequence[Any], Sequence[Any]], float] | None = None
    calibration: Callable[[Sequence[Decoded], Sequence[Any]], dict[str, float]] | None = None
    numbered: bool = True
    of_cells: Callable[[NDArray[Any], Cells], Any] = CellValues
    alone: NetworkAlone = NetworkAlone()

    @property
    def per(self) -> Per:
        """What one answer is about."""
        return self.kind.per

    @property
    def truth(self) -> TruthKind:
        """What a data set must give, and what answers are."""
        return self.kind.truth

    @property
    def metric(self) -> str:
        """The score to maximise."""
        return self.metrics[0]

    def defaults(self) -> dict[str, float]:
        """Return the first candidate of each parameter."""
        return {name: values[0] for name, values in self.candidates.items()}

    def completed(self, decode: Parameters) -> dict[str, float]:
        """Return the decode parameters of a model with a value for each that it does not state."""
        return self.defaults() | (dict(self.earlier) if decode else {}) | dict(decode)


@dataclass(frozen=True)
class Block:
    """Where a block of dense outputs lies in its image.

    Attributes
    ----------
    origin, frame
        Where it begins, and the image's shape.
    scale
        Pixels of the image per pixel that the network saw, along each axis; None where both are the same.
    """

    origin: tuple[int, ...]
    frame: tuple[int, ...]
    scale: Scale = None


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
    """Five members, and the kind that the class as such is of; nothing else asks which task it has."""

    kind: ClassVar[TaskKind]
    output: Output

    def encode(self, truth: Tensor) -> Tensor:
        """Turn a batch of truths into the target of the loss.

        Per pixel: (B, spatial…) integer labels, −1 unknown, or (B, K, spatial…) float32 images, NaN unknown.
        Per cell: (B,) float32, classes among them, −1 unknown. Per link: (B, M, N) int64, −1 unknown.
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

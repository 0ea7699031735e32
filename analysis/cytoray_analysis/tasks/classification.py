"""Classification: which of some classes a cell belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional

from cytoray_analysis.errors import BundleError
from cytoray_analysis.kinds import TASK_KINDS, TaskKind
from cytoray_analysis.tasks.class_answers import Classes
from cytoray_analysis.tasks.class_scores import metric_names, score_classes
from cytoray_analysis.tasks.loss import Loss
from cytoray_analysis.tasks.protocol import Block, Decoded, NetworkAlone, Output, Parameters

# Four percent apart: the likelihood is flat around its best temperature.
_TEMPERATURES = (1.0, *(float(value) for value in np.round(np.geomspace(0.1, 10.0, 117), 4) if value != 1.0))


class Classification:
    """Give each cell a probability per class.

    Parameters
    ----------
    classes
        Names of the classes, in the order of their indices.
    counts
        Cells of each class in the training data; needed for balanced weights. None for as many of each.
    loss
        ``cross_entropy``, or ``focal``, which looks away from cells that are right already (Lin et al., ICCV 2017,
        arXiv:1708.02002).
    class_weights
        How much a cell of each class weighs in the loss: ``none``, all the same; ``balanced``, in inverse proportion to
        `counts`, so that every class weighs the same in all; or a weight per class. They are scaled so that a cell of
        the training data weighs 1 on average: how hard a cell pulls does not depend on which others are in its batch.
        Together with balanced sampling the rare classes would be counted up twice.
    focal_gamma
        Exponent of the focal loss; at 0 it is the cross-entropy.
    label_smoothing
        Share of each label that is spread over all classes (Szegedy et al., CVPR 2016, arXiv:1512.00567); labels of
        people who disagree deserve some.

    Raises
    ------
    BundleError
        A number of counts or weights other than that of the classes, fewer than two classes, a class twice, or weights
        that give no cell any weight.
    """

    kind: ClassVar[TaskKind] = TASK_KINDS["classification"]

    def __init__(
        self,
        *,
        classes: Sequence[str],
        counts: Sequence[int] = (),
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        class_weights: Literal["none", "balanced"] | Sequence[float] = "none",
        focal_gamma: float = 2.0,
        label_smoothing: float = 0.0,
    ) -> None:
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise BundleError(
                f"expected two or more different class names, got {list(classes)}", field="task.arguments.classes"
            )
        if loss not in ("cross_entropy", "focal"):
            raise BundleError(f"expected 'cross_entropy' or 'focal', got {loss!r}", field="task.arguments.loss")
        if not 0.0 <= label_smoothing < 1.0:
            raise BundleError(
                f"expected a share from 0 to below 1, got {label_smoothing}", field="task.arguments.label_smoothing"
            )
        self.classes = tuple(classes)
        self.weights = _weights(self.classes, counts, class_weights)
        self.focal_gamma = focal_gamma if loss == "focal" else 0.0
        self.label_smoothing = label_smoothing
        self.output = Output(
            self.kind,
            channels=len(self.classes),
            metrics=metric_names(self.classes),
            candidates={"temperature": _TEMPERATURES},
            objective=log_likelihood,
            alone=NetworkAlone(self.classes, note=_note),
            of_cells=lambda probabilities, cells: Classes(self.classes, probabilities, cells),
        )

    def encode(self, truth: Tensor) -> Tensor:
        """Return classes (B,) as int64; −1 where unknown."""
        return truth.long()

    @property
    def loss(self) -> Loss:
        """The mean over cells of known class, each times the weight of its class; 0 where there is none."""
        return Loss(self._sums, lambda target: (target >= 0).sum().reshape(1).float())

    def _sums(self, outputs: Tensor, target: Tensor) -> Tensor:
        weights = torch.ones_like(outputs[0]) if self.weights is None else self.weights.to(outputs)
        each = functional.cross_entropy(
            outputs, target, weight=weights, ignore_index=-1, label_smoothing=self.label_smoothing, reduction="none"
        )
        if self.focal_gamma > 0:
            probability = outputs.softmax(dim=1).gather(1, target.clamp(min=0).unsqueeze(1)).squeeze(1)
            each = each * (1 - probability) ** self.focal_gamma
        return each.sum().reshape(1)

    def decode(self, outputs: NDArray[np.float32], parameters: Parameters, block: Block | None = None) -> Decoded:
        """Turn (N, K) logits of N cells into probabilities, float32.

        Logits are divided by the fitted temperature first (Guo et al., ICML 2017, arXiv:1706.04599), which changes how
        sure the answers are and not what they are.
        """
        return Decoded(softmax(outputs.astype(np.float64) / parameters["temperature"], axis=1).astype(np.float32))

    def score(self, answers: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]]) -> dict[str, float]:
        """Score probabilities (N, K) against classes (N,); cells of unknown class (−1) do not count.

        See :func:`~cytoray_analysis.tasks.class_scores.score_classes`.
        """
        return score_classes(*pooled(answers, truths, len(self.classes)), self.classes)


def _note(decode: Parameters, window: tuple[int, ...]) -> str:
    return (
        f"The input is a window of {' × '.join(map(str, window))} pixels around one cell, cut "
        "from the scaled image: the intensities are those of the whole image, which the step above, seeing "
        f"one window, cannot measure. Outputs are logits; the temperature is {decode or 'one'}."
    )


def pooled(
    answers: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Put the cells of all images together, probabilities (N, K) and classes (N,), without those of unknown class."""
    probabilities = np.concatenate([np.zeros((0, classes)), *answers])
    truth = np.concatenate([np.zeros(0, np.int64), *(np.asarray(item, np.int64) for item in truths)])
    return probabilities[truth >= 0], truth[truth >= 0]


def log_likelihood(answers: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]]) -> float:
    """Return the mean log probability of the true classes, over cells of known class; 0 where there is none."""
    if not answers:
        return 0.0
    probabilities, truth = pooled(answers, truths, answers[0].shape[1])
    if not len(truth):
        return 0.0
    true = probabilities[np.arange(len(truth)), truth]
    return float(np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())


def _weights(
    classes: Sequence[str], counts: Sequence[int], chosen: Literal["none", "balanced"] | Sequence[float]
) -> Tensor | None:
    if chosen == "none":
        return None
    if (chosen == "balanced" or counts) and len(counts) != len(classes):
        raise BundleError(
            f"expected a count for each of {len(classes)} classes, got {len(counts)}",
            field="task.arguments.counts",
            hint="balanced weights follow from the number of cells of each class",
        )
    if chosen != "balanced" and (
        len(chosen) != len(classes) or not all(isinstance(weight, int | float) for weight in chosen)
    ):
        raise BundleError(
            f"expected 'none', 'balanced' or {len(classes)} numbers, got {chosen!r}",
            field="task.arguments.class_weights",
        )
    cells = torch.tensor(counts if sum(counts) else [1] * len(classes), dtype=torch.float32)
    # A class without a cell in the training data weighs as if it had one, and meets no cell to weigh.
    weights = 1 / cells.clamp(min=1) if chosen == "balanced" else torch.tensor(chosen, dtype=torch.float32)
    mean = (weights * cells).sum() / cells.sum()
    if not mean > 0:
        raise BundleError(
            f"expected a positive weight for a class that has cells, got {chosen!r}",
            field="task.arguments.class_weights",
        )
    return weights / mean

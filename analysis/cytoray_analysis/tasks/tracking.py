"""Tracking: candidates for links and divisions are judged one by one, then the best set of them is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from cytoray_analysis.kinds import TASK_KINDS, TaskKind
from cytoray_analysis.tasks.loss import Loss
from cytoray_analysis.tasks.protocol import Block, Decoded, Output, Parameters
from cytoray_analysis.tracking.judged import JudgedMovie
from cytoray_analysis.tracking.lineage import Lineage
from cytoray_analysis.tracking.linker import PARAMETERS, link
from cytoray_analysis.tracking.scores import METRICS, score_lineages


class Tracking:
    """Link the objects of a movie.

    Parameters
    ----------
    division_weight
        How much the loss of divisions weighs against that of links.
    """

    kind: ClassVar[TaskKind] = TASK_KINDS["tracking"]

    def __init__(self, *, division_weight: float = 1.0) -> None:
        self.division_weight = division_weight
        self.output = Output(self.kind, channels=2, metrics=METRICS, candidates=PARAMETERS)

    def encode(self, truth: Tensor) -> Tensor:
        """Turn (B, 2, N) int64 truths, 1 yes, 0 no, −1 unknown or not asked, into a float32 target."""
        return truth.float()

    @property
    def loss(self) -> Loss:
        """The cross-entropy of links plus that of divisions, each a mean over what is known."""
        return Loss(self._sums, lambda target: (target >= 0).sum(dim=(0, 2)).float())

    def _sums(self, outputs: Tensor, target: Tensor) -> Tensor:
        entropy = functional.binary_cross_entropy_with_logits(outputs, target.clamp(min=0), reduction="none")
        sums = (entropy * (target >= 0)).sum(dim=(0, 2))
        return sums * torch.tensor([1.0, self.division_weight], device=sums.device)

    def decode(self, outputs: JudgedMovie, parameters: Parameters, block: Block | None = None) -> Decoded:
        """Choose the best set of candidates of a judged movie; its lineage."""
        lineage = link(outputs, parameters)
        return Decoded(lineage, confidence=lineage.confidence)

    def score(self, answers: Sequence[Lineage], truths: Sequence[Any]) -> dict[str, float]:
        """Score lineages: see :func:`cytoray_analysis.tracking.scores.score_lineages`."""
        return score_lineages(answers, truths)

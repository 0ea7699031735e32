"""Tracking: candidates for links and divisions are judged one by one, then the best set of them is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from cytoray_analysis.tasks.protocol import Block, Decoded, Output, Parameters, TruthKind
from cytoray_analysis.tracking.judged import JudgedMovie
from cytoray_analysis.tracking.lineage import Lineage
from cytoray_analysis.tracking.linker import PARAMETERS, link
from cytoray_analysis.tracking.scores import score_lineages


class Tracking:
    """Link the objects of a movie.

    Parameters
    ----------
    division_weight
        How much the loss of divisions weighs against that of links.
    """

    truth: ClassVar[TruthKind] = "lineage"

    def __init__(self, *, division_weight: float = 1.0) -> None:
        self.division_weight = division_weight
        self.output = Output(per="link", truth=self.truth, channels=2, candidates=PARAMETERS)

    def encode(self, truth: Tensor) -> Tensor:
        """Turn (B, 2, N) int64 truths, 1 yes, 0 no, −1 unknown or not asked, into a float32 target."""
        return truth.float()

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of links plus that of divisions, each a mean over what is known."""
        known = (target >= 0).float()
        entropy = functional.binary_cross_entropy_with_logits(outputs, target.clamp(min=0), reduction="none") * known
        means = entropy.sum(dim=(0, 2)) / known.sum(dim=(0, 2)).clamp(min=1)
        return (means * torch.tensor([1.0, self.division_weight], device=means.device)).sum()

    def decode(self, outputs: JudgedMovie, parameters: Parameters, block: Block | None = None) -> Decoded:
        """Choose the best set of candidates of a judged movie; its lineage."""
        lineage = link(outputs, parameters)
        return Decoded(lineage, confidence=lineage.confidence)

    def score(self, answers: Sequence[Lineage], truths: Sequence[Any]) -> dict[str, float]:
        """Score lineages: see :func:`cytoray_analysis.tracking.scores.score_lineages`."""
        return score_lineages(answers, truths)

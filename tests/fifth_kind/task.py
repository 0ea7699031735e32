"""The task: a number for each cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cytoray_analysis.kinds import TaskKind
from cytoray_analysis.tasks.loss import Loss, mean_over_crops
from cytoray_analysis.tasks.protocol import Block, Decoded, NetworkAlone, Output, Parameters
from fifth_kind.kind import MEASUREMENT


class Measurement:
    """Predict an amount for each cell; the network predicts ``(amount − offset) / scale``."""

    kind: ClassVar[TaskKind] = MEASUREMENT

    def __init__(self, *, offset: float = 0.0, scale: float = 1.0) -> None:
        self.offset, self.scale = offset, scale
        self.output = Output(
            self.kind, channels=1, metrics=("mean_error",), candidates={}, alone=NetworkAlone(("amount",))
        )

    def encode(self, truth: Tensor) -> Tensor:
        """Scale amounts (B,)."""
        return (truth.float() - self.offset) / self.scale

    @property
    def loss(self) -> Loss:
        """The mean squared error."""
        return mean_over_crops(lambda outputs, target: functional.mse_loss(outputs[:, 0], target))

    def decode(self, outputs: NDArray[np.float32], parameters: Parameters, block: Block | None = None) -> Decoded:
        """Turn outputs (N, 1) into amounts (N, 1)."""
        return Decoded(outputs * np.float32(self.scale) + np.float32(self.offset))

    def score(self, answers: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]]) -> dict[str, float]:
        """Score amounts (N, 1) against true ones (N,)."""
        errors = [np.abs(answer[:, 0] - truth) for answer, truth in zip(answers, truths, strict=True)]
        return {"mean_error": float(np.concatenate(errors).mean())} if any(map(len, errors)) else {}

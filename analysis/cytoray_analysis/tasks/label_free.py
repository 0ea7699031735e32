"""Label-free prediction: prediction of a stain, per pixel, from transmitted light.

After Christiansen et al., Cell 173, 792 (2018) and Ounkomol et al., Nat Methods 15, 917 (2018). In two dimensions, in
three, and from a stack to a plane, where the planes are channels of a network in two dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cytoray_analysis.errors import RecipeError
from cytoray_analysis.kinds import TASK_KINDS, TaskKind
from cytoray_analysis.tasks.image_losses import LOSSES, sum_of_known
from cytoray_analysis.tasks.image_scores import metric_names, score_images
from cytoray_analysis.tasks.loss import Loss, counted
from cytoray_analysis.tasks.protocol import Block, Decoded, NetworkAlone, Output, Parameters

# log σ of a scaled target lies within these, so that neither a lucky pixel nor a hot one decides a step.
_LOG_DEVIATION = (-6.0, 4.0)
_LIKELIHOOD_WEIGHT = 0.1
_DEVIATIONS_NOTE = (
    "Outputs are in units of the training set's deviation; the second half are logarithms of how far "
    "off the prediction is likely to be. offset and scale are in the attached bundle."
)


class LabelFree:
    """Predict one or more fluorescence channels.

    Parameters
    ----------
    dimensions
        Number of spatial axes of the answer.
    channels
        Names of the target's channels.
    offset, scale
        Per target channel: the network predicts ``(pixels − offset) · scale``; both are measured on the training set.
    loss
        Weight of each loss: ``mse``, ``l1`` and ``ms_ssim`` (one minus the multi-scale structural similarity).
    uncertainty
        Whether the network also predicts, per pixel and channel, the size of its error: the noise in the data, not the
        unfamiliarity of an image (Kendall and Gal, NeurIPS 2017, arXiv:1703.04977). It is learned from the likelihood
        of the errors made, which does not reach the prediction itself: errors that the likelihood may explain away
        would be learned less (Seitzer et al., ICLR 2022, arXiv:2203.09168).

    Raises
    ------
    RecipeError
        A loss is unknown, a weight not positive, or the channels, offsets and scales are not of one number.
    """

    kind: ClassVar[TaskKind] = TASK_KINDS["label_free"]

    def __init__(
        self,
        *,
        dimensions: int = 2,
        channels: Sequence[str] = ("target",),
        offset: Sequence[float] = (0.0,),
        scale: Sequence[float] = (1.0,),
        loss: Mapping[str, float] | None = None,
        uncertainty: bool = False,
    ) -> None:
        self.dimensions = dimensions
        self.channels = tuple(channels)
        self.uncertainty = uncertainty
        self.weights = dict(loss) if loss else {"l1": 1.0}
        unknown = sorted(set(self.weights) - set(LOSSES))
        if unknown or not all(weight > 0 for weight in self.weights.values()):
            raise RecipeError(
                f"expected a positive weight for any of {', '.join(LOSSES)}, got {self.weights}",
                field="model.task.arguments.loss",
            )
        if not len(self.channels) == len(offset) == len(scale) or not all(factor > 0 for factor in scale):
            raise RecipeError(
                f"expected an offset and a positive scale for each of {list(self.channels)}, "
                f"got {list(offset)} and {list(scale)}",
                field="model.task.arguments.channels",
            )
        self._offset = np.array(offset, np.float32)
        self._scale = np.array(scale, np.float32)
        alone = NetworkAlone(
            self.channels, linear=(tuple(1.0 / float(one) for one in scale), tuple(map(float, offset)))
        )
        if uncertainty:
            names = (*self.channels, *(f"log deviation of {name}" for name in self.channels))
            alone = NetworkAlone(names, note=lambda decode, window: _DEVIATIONS_NOTE)
        self.output = Output(
            self.kind,
            channels=len(self.channels) * (2 if uncertainty else 1),
            metrics=metric_names(self.channels, uncertainty=uncertainty),
            candidates={},
            alone=alone,
        )

    def encode(self, truth: Tensor) -> Tensor:
        """Scale a target.

        Parameters
        ----------
        truth
            (B, K, spatial…) float32 in its own units, NaN where unknown.

        Returns
        -------
        Tensor
            (B, K, spatial…) float32, about zero mean and unit deviation, NaN where unknown.
        """
        column = (-1,) + (1,) * self.dimensions
        offset = torch.from_numpy(self._offset).to(truth.device).view(column)
        scale = torch.from_numpy(self._scale).to(truth.device).view(column)
        return (truth.float() - offset) * scale

    @property
    def loss(self) -> Loss:
        """The weighted losses over known pixels (``ms_ssim``: over crops), and the likelihood of the errors made."""
        return Loss(self._sums, self._amounts)

    def _amounts(self, target: Tensor) -> Tensor:
        return counted(torch.isfinite(target).sum(), target.new_tensor(len(target)))

    def _sums(self, outputs: Tensor, target: Tensor) -> Tensor:
        known = torch.isfinite(target)
        predicted = outputs[:, : len(self.channels)]
        # Where nothing is known the target is the prediction itself: no error, and no gradient.
        wanted = torch.where(known, target, predicted.detach())
        total = {"pixel": predicted.new_zeros(()), "crop": predicted.new_zeros(())}
        for name, weight in self.weights.items():
            difference = LOSSES[name]
            total[difference.per] = total[difference.per] + weight * difference.total(predicted, wanted, known)
        if self.uncertainty:
            spread = outputs[:, len(self.channels) :].clamp(*_LOG_DEVIATION)
            error = (predicted - wanted).detach().abs()
            # Of Laplace's distribution: that of the normal one is so steep in rare large errors that the features
            # which both outputs share would serve nothing else. √(π/2) times the mean error is, for normal errors,
            # their standard deviation.
            likelihood = spread + math.sqrt(math.pi / 2) * error * torch.exp(-spread)
            total["pixel"] = total["pixel"] + _LIKELIHOOD_WEIGHT * sum_of_known(likelihood, known)
        return torch.stack((total["pixel"], total["crop"]))

    def decode(self, outputs: NDArray[np.float32], parameters: Parameters, block: Block | None = None) -> Decoded:
        """Turn (channels, spatial…) outputs into the target's own units.

        Returns
        -------
        Decoded
            ``values`` (K, spatial…) float32, or (2 K, spatial…) with as many standard deviations after the predictions.
        """
        column = (-1,) + (1,) * (outputs.ndim - 1)
        offset, scale = self._offset.reshape(column), self._scale.reshape(column)
        values: NDArray[np.float32] = outputs[: len(self.channels)] / scale + offset
        if self.uncertainty:
            deviations = np.exp(np.clip(outputs[len(self.channels) :], *_LOG_DEVIATION)) / scale
            values = np.concatenate((values, deviations))
        return Decoded(values.astype(np.float32, copy=False))

    def score(self, answers: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]]) -> dict[str, float]:
        """Score images: see :mod:`cytoray_analysis.tasks.image_scores`."""
        return score_images(answers, truths, self.channels, uncertainty=self.uncertainty)

"""Instance segmentation: foreground and centre offsets per pixel, decoded by voting.

The representation was chosen by measurement against distance maps with watershed:
docs/decisions/0002-centre-offsets.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cytoray_analysis.errors import RecipeError
from cytoray_analysis.kinds import TASK_KINDS, TaskKind
from cytoray_analysis.tasks.centre_votes import VotingParameters, decode_votes, reach_of_decoding
from cytoray_analysis.tasks.confidence import calibrate, fit_confidence, matched_objects
from cytoray_analysis.tasks.instance_scores import METRICS, count_objects, mean_accuracy, score_instances
from cytoray_analysis.tasks.loss import Loss, counted
from cytoray_analysis.tasks.overlap import judged_objects, overlap
from cytoray_analysis.tasks.protocol import Block, Decoded, NetworkAlone, Output, Parameters, Scale

SMALL = 64.0  # pixels of an object that weighs as a small one


class InstanceSegmentation:
    """Label every object in images (``dimensions=2``) or volumes (``dimensions=3``).

    Parameters
    ----------
    dimensions
        Number of spatial axes.
    offset_unit
        Pixels that one unit of the offset channels stands for; keeps outputs near one.
    boundary_weight
        How much more a pixel on an object's boundary weighs in the foreground loss.
    small_weight
        How much more a pixel in a small object (of up to 64 pixels; a larger one in proportion less) or around it
        weighs there.
    dice
        Weight of the soft Dice of the foreground. It finds objects sooner, and makes small ones too large.
    reach
        Farthest that a pixel may lie from its object's centre along an axis, in pixels. Larger objects fall apart;
        a larger reach costs wider margins where an image is decoded in blocks.
    anisotropy
        How many times longer a pixel of a volume is along Z than along Y and X. Distances, `reach` among them, are in
        pixels along Y and X.

    Raises
    ------
    RecipeError
        `dimensions` or `anisotropy` is out of range.
    """

    kind: ClassVar[TaskKind] = TASK_KINDS["segmentation"]

    def __init__(
        self,
        *,
        dimensions: int = 2,
        offset_unit: float = 16.0,
        boundary_weight: float = 1.0,
        small_weight: float = 0.0,
        dice: float = 0.5,
        reach: int = 64,
        anisotropy: float = 1.0,
    ) -> None:
        if dimensions not in (2, 3) or anisotropy <= 0 or (dimensions == 2 and anisotropy != 1):
            raise RecipeError(
                f"expected 2 dimensions, or 3 and a positive anisotropy, got {dimensions} and {anisotropy}",
                field="model.task.arguments",
            )
        self.dimensions = dimensions
        self.offset_unit = offset_unit
        self.boundary_weight = boundary_weight
        self.small_weight = small_weight
        self.dice = dice
        self.anisotropy = anisotropy
        # Pixels along Y and X that a pixel along each axis stands for.
        self._lengths = (anisotropy, 1.0, 1.0)[-dimensions:]
        self.output = Output(
            self.kind,
            channels=1 + dimensions,
            metrics=METRICS,
            candidates={
                "foreground": (0.0, -1.5, -1.0, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0, 1.5),
                "probability": (0.0, 0.6, 0.65, 0.7, 0.75),
                "votes": (16.0, 8.0, 12.0, 24.0, 36.0, 60.0, 100.0, 160.0),
                "separation": (2.0, 3.0, 4.0, 5.0, 6.0, 8.0),
                "capture": (6.0, 4.0, 9.0, 12.0),
                "radius_share": (0.5, 0.0, 0.3, 0.4, 0.6),
                "smallest": (16.0, 8.0, 24.0, 36.0),
                "reach": (float(reach),),
                "confidence_slope": (1.0,),
                "confidence_offset": (0.0,),
            },
            earlier={"radius_share": 0.0, "probability": 0.0},
            gain=1e-3,
            margin=self._margin,
            objective=_accuracy,
            calibration=_fit_confidence,
            alone=NetworkAlone(note=_note, tag="instance-segmentation"),
        )

    def encode(self, truth: Tensor) -> Tensor:
        """Turn labels into foreground, weights and offsets.

        Parameters
        ----------
        truth
            (B, spatial…) integer labels, 0 background, −1 unknown.

        Returns
        -------
        Tensor
            (B, 3 + dimensions, spatial…) float32: foreground 0 or 1; its weight (0 where unknown, more on
            boundaries and in small objects); weight of the offsets (0 outside objects, less per pixel in large ones, so
            that small objects count); offset to the object's centre per spatial axis, in pixels along Y and X. That is
            the centre of mass, or where it lies outside a bent object, the pixel of the object nearest to it.
        """
        known = truth >= 0
        labels = truth.clamp(min=0)
        batch = labels.shape[0]
        if int(labels.max()) > labels[0].numel():  # however large the numbers, tables have a row per pixel at most
            labels = torch.unique(torch.cat((labels.flatten(), labels.new_zeros(1))), return_inverse=True)[1][:-1].view(
                labels.shape
            )
        objects = int(labels.max()) + 1
        column = (batch,) + (1,) * self.dimensions
        index = (labels + torch.arange(batch, device=labels.device).view(column) * objects).reshape(-1)
        pixels = torch.bincount(index, minlength=batch * objects)
        area = pixels.clamp(min=1).float()
        positions = _positions(labels)
        centres = [torch.zeros_like(area).index_add_(0, index, position) / area for position in positions]
        centres = _inside(centres, positions, labels, index, pixels)
        offsets = [
            (centre[index] - position).view(labels.shape) * length
            for centre, position, length in zip(centres, positions, self._lengths, strict=True)
        ]
        foreground = (labels > 0).float()
        area_here = area[index].view(labels.shape)
        # Around an object as in it: otherwise small objects would come out too large.
        small = _widened(foreground * (SMALL / area_here).clamp(max=1)) if self.small_weight else foreground * 0
        weight = known * (1 + self.boundary_weight * _boundary(labels) + self.small_weight * small)
        per_object = foreground * known / area_here.sqrt().clamp(min=4)
        return torch.stack((foreground, weight, per_object, *offsets), dim=1)

    @property
    def loss(self) -> Loss:
        """Cross-entropy over known pixels, soft Dice of the foreground over crops, Huber loss of offsets over objects.

        The soft Dice, 1 − 2 Σ p g / (Σ p + Σ g), is that of Drozdzal et al., DLMIA 2016, arXiv:1608.04117, of each
        crop with a known pixel, and with one added above and below, so that an empty crop has one.
        """
        return Loss(self._sums, self._amounts)

    def _amounts(self, target: Tensor) -> Tensor:
        known = target[:, 1] > 0
        return counted(known.sum(), known.flatten(1).any(1).sum(), target[:, 2].sum())

    def _sums(self, outputs: Tensor, target: Tensor) -> Tensor:
        foreground, weight, per_object, offsets = target[:, 0], target[:, 1], target[:, 2], target[:, 3:]
        known = (weight > 0).float()
        logits = outputs[:, 0]
        entropy = functional.binary_cross_entropy_with_logits(logits, foreground, reduction="none")
        probability = torch.sigmoid(logits) * known
        shared = (probability * foreground).flatten(1).sum(1)
        total = (probability + foreground * known).flatten(1).sum(1)
        dice = 1 - (2 * shared + 1) / (total + 1)
        error = functional.smooth_l1_loss(outputs[:, 1:] * self.offset_unit, offsets, reduction="none").sum(1)
        return torch.stack(((entropy * weight).sum(), dice.sum() * self.dice, (error * per_object).sum() / 8))

    def decode(self, outputs: NDArray[np.float32], parameters: Parameters, block: Block | None = None) -> Decoded:
        """Turn (1 + dimensions, spatial…) outputs into object numbers, int32."""
        scale = block.scale if block else None
        pixels = np.array([self.offset_unit / length for length in self._lengths], np.float32)
        pixels *= np.array(scale or (1.0,) * self.dimensions, np.float32)
        labels, identities, confidence = decode_votes(
            outputs[0],
            outputs[1:] * pixels.reshape(-1, *(1,) * self.dimensions),
            self._voting(parameters, scale),
            origin=block.origin if block else None,
            frame=block.frame if block else None,
        )
        confidence[1:] = calibrate(confidence[1:], parameters["confidence_slope"], parameters["confidence_offset"])
        return Decoded(labels, identities, confidence)

    def _margin(self, parameters: Parameters, scale: Scale = None) -> tuple[int, ...]:
        return reach_of_decoding(self._voting(parameters, scale), self.dimensions)

    def _voting(self, parameters: Parameters, scale: Scale = None) -> VotingParameters:
        fitted = VotingParameters(
            foreground=parameters["foreground"],
            votes=parameters["votes"],
            separation=round(parameters["separation"]),
            capture=round(parameters["capture"]),
            smallest=round(parameters["smallest"]),
            radius_share=parameters["radius_share"],
            probability=parameters["probability"],
            reach=round(parameters["reach"]),
            anisotropy=self.anisotropy,
        )
        return fitted if scale is None else fitted.scaled(scale)

    def score(self, answers: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]]) -> dict[str, float]:
        """Score label images over all images together; pixels whose truth is below 0 are unknown and do not count.

        Returns
        -------
        dict
            See :func:`cytoray_analysis.tasks.instance_scores.score_instances`. Empty where there is neither a true nor
            a predicted object.
        """
        return score_instances([count_objects(answer, truth) for answer, truth in zip(answers, truths, strict=True)])


def _positions(labels: Tensor) -> list[Tensor]:
    """Return the position of each pixel along each spatial axis, flat, float32."""
    axes = [torch.arange(length, dtype=torch.float32, device=labels.device) for length in labels.shape[1:]]
    return [grid.expand(labels.shape).reshape(-1) for grid in torch.meshgrid(*axes, indexing="ij")]


def _inside(
    centres: list[Tensor], positions: list[Tensor], labels: Tensor, index: Tensor, pixels: Tensor
) -> list[Tensor]:
    """Move centres that lie outside their object to its nearest pixel, as votes must not meet in another object.

    A medoid, as the centres of EmbedSeg (Lalit et al., Medical Image Analysis 2022, arXiv:2101.10033) are, but in
    linear time.
    """
    number, objects = torch.arange(len(pixels), device=labels.device), len(pixels) // len(labels)
    at = [centre.round().long() for centre in centres]
    outside = (labels[(number // objects, *at)] != number % objects) & (number % objects > 0) & (pixels > 0)
    if not outside.any():
        return centres
    distance = sum((centre[index] - position) ** 2 for centre, position in zip(centres, positions, strict=True))
    assert isinstance(distance, Tensor)  # noqa: S101 - for the type
    least = torch.full_like(centres[0], torch.inf).scatter_reduce_(0, index, distance, "amin")
    nearest = torch.where(distance == least[index], torch.arange(len(index), device=index.device), len(index) - 1)
    first = torch.full_like(number, len(index) - 1).scatter_reduce_(0, index, nearest, "amin")
    return [torch.where(outside, position[first], centre) for centre, position in zip(centres, positions, strict=True)]


def _fit_confidence(decoded: Sequence[Decoded], truths: Sequence[NDArray[Any]]) -> dict[str, float]:
    confidences, matched = [], []
    for one, truth in zip(decoded, truths, strict=True):
        if one.confidence is not None:
            judged = judged_objects(one.values, truth)
            confidences.append(one.confidence[judged])
            matched.append(matched_objects(one.values, truth)[judged])
    return fit_confidence(confidences, matched)


def _note(decode: Parameters, window: tuple[int, ...]) -> str:
    return (
        "The outputs are not labels. Cytoray decodes them (votes for object centres) with the attached "
        f"bundle's parameters {decode or 'by default'}; the format has no step for that."
    )


def _accuracy(answers: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]]) -> float:
    """Return what decoding is fitted for: the mean segmentation accuracy, which no single threshold decides."""
    return mean_accuracy([overlap(answer, truth) for answer, truth in zip(answers, truths, strict=True)])


def _widened(values: Tensor) -> Tensor:
    """Return the maximum within three pixels along Y and X; shape of `values`, (B, …, Y, X)."""
    planes = values.flatten(1, -3) if values.ndim > 3 else values.unsqueeze(1)
    return functional.max_pool2d(planes, 7, stride=1, padding=3).view(values.shape)


def _boundary(labels: Tensor) -> Tensor:
    """Return 1 where a pixel has a neighbour (along an axis) of another label, else 0; shape of `labels`."""
    edge = torch.zeros(labels.shape, dtype=torch.bool, device=labels.device)
    for axis in range(1, labels.ndim):
        length = labels.shape[axis]
        lower, upper = labels.narrow(axis, 0, length - 1), labels.narrow(axis, 1, length - 1)
        differs = lower != upper
        edge.narrow(axis, 0, length - 1).logical_or_(differs)
        edge.narrow(axis, 1, length - 1).logical_or_(differs)
    return edge.float()

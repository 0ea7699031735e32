"""Semantic segmentation: one class per pixel, such as background, nucleus and cytoplasm, or tumour and stroma."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cytoray_analysis.errors import DatasetError, RecipeError
from cytoray_analysis.kinds import TASK_KINDS, TaskKind
from cytoray_analysis.tasks.class_values import DEFAULT_CLASSES, UNKNOWN, class_of_value
from cytoray_analysis.tasks.loss import Loss, counted
from cytoray_analysis.tasks.protocol import Block, Decoded, NetworkAlone, Output, Parameters

_OVERALL = ("iou", "dice", "accuracy")


class SemanticSegmentation:
    """Give every pixel of images (``dimensions=2``) or volumes (``dimensions=3``) its class.

    Truth is an image of class indices, in the order of `classes`; −1 and 255 say that nothing is known. Masks with
    other numbers, such as 0 and 255, are read by `values`; see :mod:`cytoray_analysis.tasks.class_values`.

    Parameters
    ----------
    dimensions
        Number of spatial axes.
    classes
        Name of each class, that of index 0 (the background, by custom) first.
    values
        Which class each number of the masks stands for, such as ``{0: background, 255: nucleus}``; None where numbers
        are indices.

    Raises
    ------
    RecipeError
        There are fewer than two classes or more than 255, two of one name, or `values` names another.
    """

    kind: ClassVar[TaskKind] = TASK_KINDS["semantic_segmentation"]

    def __init__(
        self,
        *,
        dimensions: int = 2,
        classes: Sequence[str] = DEFAULT_CLASSES,
        values: Mapping[Any, str] | None = None,
    ) -> None:
        if not 2 <= len(classes) <= UNKNOWN or len(set(classes)) < len(classes):
            raise RecipeError(
                f"expected 2 to {UNKNOWN} classes of different names, got {list(classes)}",
                field="model.task.arguments.classes",
            )
        self.dimensions = dimensions
        self.classes = tuple(classes)
        class_of_value(values, self.classes)
        self.output = Output(
            self.kind,
            channels=len(classes),
            metrics=(*_OVERALL, *(f"{metric}_{name}" for metric in ("iou", "dice") for name in classes)),
            candidates={},
            numbered=False,
            alone=NetworkAlone(
                self.classes,
                softmax=True,
                note=lambda decode, window: "A pixel's class is the one with the highest probability.",
                tag="semantic-segmentation",
            ),
        )

    def encode(self, truth: Tensor) -> Tensor:
        """Turn class indices (B, spatial…) integer into int64 with −1 for all that is unknown.

        Raises
        ------
        DatasetError
            A pixel's class is none of `classes`.
        """
        target = truth.to(torch.int64)
        target = target.masked_fill(target == UNKNOWN, -1)
        self._refuse_foreign_classes(int(target.max()))
        return target

    @property
    def loss(self) -> Loss:
        """Cross-entropy over known pixels, plus the soft Dice loss, averaged over the classes that occur.

        The soft Dice, 1 − 2 Σ p g / (Σ p + Σ g), is that of Drozdzal et al., DLMIA 2016, arXiv:1608.04117, for several
        classes as in Isensee et al., arXiv:1809.10486, with one added above and below. It is of one crop each, so that
        it adds up over the parts of a batch, and a crop counts by its pixels of the class: one without the class does
        not punish every trace of it.
        """
        return Loss(self._sums, self._amounts, _denominators)

    def _amounts(self, target: Tensor) -> Tensor:
        return counted(*((target == index).sum() for index in range(len(self.classes))))

    def _sums(self, outputs: Tensor, target: Tensor) -> Tensor:
        known = target >= 0
        classes = target.clamp(min=0)
        entropy = functional.cross_entropy(outputs, classes, reduction="none")
        probability = outputs.softmax(dim=1) * known.unsqueeze(1)
        truth = functional.one_hot(classes, len(self.classes)).movedim(-1, 1) * known.unsqueeze(1)
        pixels = tuple(range(2, outputs.ndim))
        shared, true = (probability * truth).sum(pixels), truth.sum(pixels)
        dice = 1 - (2 * shared + 1) / (probability.sum(pixels) + true + 1)
        return torch.cat(((entropy * known).sum().reshape(1), (dice * true).sum(0)))

    def decode(self, outputs: NDArray[np.float32], parameters: Parameters, block: Block | None = None) -> Decoded:
        """Turn (classes, spatial…) outputs into the index of the likeliest class, (spatial…) int32."""
        return Decoded(outputs.argmax(axis=0).astype(np.int32))

    def score(self, answers: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]]) -> dict[str, float]:
        """Score class images over all images together.

        Returns
        -------
        dict
            ``iou`` and ``dice``: Jaccard and Dice index, averaged over the classes that occur in truth or answer;
            ``accuracy``: share of pixels whose class is right; then ``iou_CLASS`` and ``dice_CLASS`` of those that
            occur. All between 0 and 1. Empty where truth and answer hold fewer than two classes between them, so that
            there is nothing to tell apart.

        Raises
        ------
        DatasetError
            A pixel's class is none of `classes`.
        """
        count = len(self.classes)
        table = np.zeros((count, count), np.int64)
        for answer, truth in zip(answers, truths, strict=True):
            self._refuse_foreign_classes(int(truth[truth != UNKNOWN].max(initial=0)))
            known = (truth >= 0) & (truth != UNKNOWN)
            index = truth[known].astype(np.int64) * count + answer[known]
            table += np.bincount(index, minlength=count**2).reshape(count, count)
        shared, true, answered = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
        occurs = true + answered > 0
        if np.count_nonzero(occurs) < 2:
            return {}
        iou, dice = shared / np.maximum(true + answered - shared, 1), 2 * shared / np.maximum(true + answered, 1)
        scores = {"iou": float(iou[occurs].mean()), "dice": float(dice[occurs].mean())}
        scores["accuracy"] = float(shared.sum() / table.sum())
        for metric, values in (("iou", iou), ("dice", dice)):
            known = zip(self.classes, values, occurs, strict=True)
            scores |= {f"{metric}_{name}": float(value) for name, value, there in known if there}
        return scores

    def _refuse_foreign_classes(self, highest: int) -> None:
        if highest >= len(self.classes):
            raise DatasetError(
                f"expected classes 0 to {len(self.classes) - 1} ({', '.join(self.classes)}), got class {highest}",
                field="model.task.arguments.classes",
                hint="list every class of the masks, or define in model.task.arguments.values the class of each "
                "number; 255 marks unknown pixels",
            )


def _denominators(pixels: Tensor) -> Tensor:
    """Return what the cross-entropy and each class's Dice are divided by, given the known pixels of each class."""
    occurring = (pixels > 0).sum()
    return torch.cat((pixels.sum().reshape(1), pixels * occurring)).clamp(min=1)

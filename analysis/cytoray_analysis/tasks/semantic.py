"""Semantic segmentation: one class per pixel, such as background, nucleus and cytoplasm, or tumour and stroma."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cytoray_analysis.errors import DatasetError, RecipeError
from cytoray_analysis.tasks.protocol import Block, Decoded, Output, Parameters, TruthKind

UNKNOWN = 255  # how a mask of 8 bits says that a pixel belongs to no class, as PASCAL VOC does


class SemanticSegmentation:
    """Give every pixel of images (``dimensions=2``) or volumes (``dimensions=3``) its class.

    Truth is an image of class indices, in the order of `classes`; −1 and 255 say that nothing is known.

    Parameters
    ----------
    dimensions
        Number of spatial axes.
    classes
        Name of each class, that of index 0 (the background, by custom) first.

    Raises
    ------
    RecipeError
        There are fewer than two classes or more than 255, or two of one name.
    """

    truth: ClassVar[TruthKind] = "labels"

    def __init__(self, *, dimensions: int = 2, classes: Sequence[str] = ("background", "foreground")) -> None:
        if not 2 <= len(classes) <= UNKNOWN or len(set(classes)) < len(classes):
            raise RecipeError(
                f"expected 2 to {UNKNOWN} classes of different names, got {list(classes)}",
                field="model.task.arguments.classes",
            )
        self.dimensions = dimensions
        self.classes = tuple(classes)
        self.output = Output(per="pixel", truth=self.truth, channels=len(classes), candidates={})

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

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return cross-entropy plus the soft Dice loss, averaged over the classes that occur in the batch.

        Milletari et al., 3DV 2016, arXiv:1606.04797; over the whole batch, so that a crop without a class does not
        punish every trace of it.
        """
        known = target >= 0
        classes = target.clamp(min=0)
        entropy = functional.cross_entropy(outputs, classes, reduction="none")
        entropy = (entropy * known).sum() / known.sum().clamp(min=1)
        probability = outputs.softmax(dim=1) * known.unsqueeze(1)
        truth = functional.one_hot(classes, len(self.classes)).movedim(-1, 1) * known.unsqueeze(1)
        per_class = (0, *range(2, outputs.ndim))
        shared, true = (probability * truth).sum(per_class), truth.sum(per_class)
        dice = 1 - (2 * shared + 1) / (probability.sum(per_class) + true + 1)
        occurs = true > 0
        return entropy + (dice * occurs).sum() / occurs.sum().clamp(min=1)

    def decode(self, outputs: NDArray[np.float32], parameters: Parameters, block: Block | None = None) -> Decoded:
        """Turn (classes, spatial…) outputs into the index of the likeliest class, (spatial…) int32."""
        return Decoded(outputs.argmax(axis=0).astype(np.int32))

    def score(self, answers: Sequence[NDArray[Any]], truths: Sequence[NDArray[Any]]) -> dict[str, float]:
        """Score class images over all images together.

        Returns
        -------
        dict
            ``iou`` and ``dice``: Jaccard and Dice index, averaged over the classes that occur in truth or answer;
            ``accuracy``: share of pixels whose class is right; then ``iou_CLASS`` and ``dice_CLASS`` of each. All
            between 0 and 1; 1 where there is neither truth nor answer.

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
        iou = np.where(occurs, shared / np.maximum(true + answered - shared, 1), 1.0)
        dice = np.where(occurs, 2 * shared / np.maximum(true + answered, 1), 1.0)
        counted = occurs if occurs.any() else ~occurs
        scores = {"iou": float(iou[counted].mean()), "dice": float(dice[counted].mean())}
        scores["accuracy"] = float(shared.sum() / table.sum()) if table.any() else 1.0
        scores |= {f"iou_{name}": float(value) for name, value in zip(self.classes, iou, strict=True)}
        return scores | {f"dice_{name}": float(value) for name, value in zip(self.classes, dice, strict=True)}

    def _refuse_foreign_classes(self, highest: int) -> None:
        if highest >= len(self.classes):
            raise DatasetError(
                f"expected classes 0 to {len(self.classes) - 1} ({', '.join(self.classes)}), got class {highest}",
                field="model.task.arguments.classes",
                hint="name every class of the masks; 255 marks pixels of which nothing is known",
            )

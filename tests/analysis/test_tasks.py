"""Every task keeps to the protocol."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from task_conformance import TaskConformance
from torch import Tensor

from cytoray_analysis.errors import BundleError
from cytoray_analysis.kinds import TASK_KINDS
from cytoray_analysis.tasks import get_task
from cytoray_analysis.tracking.lineage import Lineage


def blobs(dimensions: int) -> Tensor:
    labels = torch.zeros((2, *(32,) * dimensions), dtype=torch.int64)
    for image, start, stop, number in ((0, 4, 12, 1), (0, 18, 29, 2), (1, 10, 20, 1), (1, 0, 2, -1)):
        labels[image][(slice(start, stop),) * dimensions] = number
    return labels


class TestSegmentation(TaskConformance):
    name = "segmentation"
    arguments: ClassVar[dict[str, Any]] = {}
    dimensions = 2

    def truths(self) -> Tensor:
        return blobs(self.dimensions)

    def unknown(self) -> Tensor:
        return torch.full_like(self.truths(), -1)

    def items(self) -> tuple[list[Any], list[Any]]:
        truth = self.truths().clamp(min=0).numpy()
        return list(truth), list(truth)


class TestSegmentationOfVolumes(TestSegmentation):
    arguments: ClassVar[dict[str, Any]] = {"dimensions": 3}
    dimensions = 3


class TestSemanticSegmentation(TestSegmentation):
    name = "semantic_segmentation"
    arguments: ClassVar[dict[str, Any]] = {"classes": ["background", "nucleus", "cytoplasm"]}


class TestClassification(TaskConformance):
    name = "classification"
    arguments: ClassVar[dict[str, Any]] = {"classes": ["a", "b", "c"], "counts": [5, 3, 1]}

    def truths(self) -> Tensor:
        return torch.tensor([0, 2, 1, -1])

    def unknown(self) -> Tensor:
        return torch.full((4,), -1)

    def items(self) -> tuple[list[Any], list[Any]]:
        truth = np.array([0, 1, 2, 2])
        return [np.eye(3, dtype=np.float32)[truth]], [truth]


class TestFocalClassification(TestClassification):
    arguments: ClassVar[dict[str, Any]] = TestClassification.arguments | {"loss": "focal", "class_weights": "balanced"}


class TestLabelFree(TaskConformance):
    name = "label_free"
    arguments: ClassVar[dict[str, Any]] = {"channels": ["dapi"], "offset": [100.0], "scale": [0.01]}

    def truths(self) -> Tensor:
        truth = torch.rand((2, 1, 32, 32), generator=torch.Generator().manual_seed(1)) * 200
        truth[1, :, :3] = torch.nan
        return truth

    def unknown(self) -> Tensor:
        return torch.full((2, 1, 32, 32), torch.nan)

    def items(self) -> tuple[list[Any], list[Any]]:
        truth = self.truths()[0].numpy()
        return [truth], [truth]


class TestLabelFreeWithUncertainty(TestLabelFree):
    arguments: ClassVar[dict[str, Any]] = TestLabelFree.arguments | {"uncertainty": True}

    def items(self) -> tuple[list[Any], list[Any]]:
        (answer,), truths = super().items()
        return [np.concatenate((answer, np.ones_like(answer)))], truths


class TestTracking(TaskConformance):
    name = "tracking"
    arguments: ClassVar[dict[str, Any]] = {}

    def truths(self) -> Tensor:
        truth = torch.randint(0, 2, (2, 2, 40), generator=torch.Generator().manual_seed(2))
        truth[:, :, 35:] = -1
        return truth

    def unknown(self) -> Tensor:
        return torch.full((2, 2, 40), -1)

    def items(self) -> tuple[list[Any], list[Any]]:
        lineage = divided_cell()
        return [lineage], [lineage]


def divided_cell() -> Lineage:
    """Return a cell over three frames, and its two daughters over three more."""
    frames, side = 6, 24
    masks = np.zeros((frames, side, side), np.int32)
    masks[:3, 8:14, 8:14] = 1
    masks[3:, 4:9, 8:14] = 2
    masks[3:, 13:18, 8:14] = 3
    return lineage_of(masks, np.array([[1, 0, 2, 0], [2, 3, 5, 1], [3, 3, 5, 1]]))


def lineage_of(masks: np.ndarray, table: np.ndarray) -> Lineage:
    from cytoray_analysis.tracking.frames import FrameStack

    rows = []
    for frame, labels in enumerate(masks):
        for number in np.unique(labels[labels > 0]):
            places = np.argwhere(labels == number)
            rows.append((frame, number, places.mean(axis=0), (places.min(axis=0), places.max(axis=0) + 1)))
    return Lineage(
        frames=len(masks),
        shape=masks.shape[1:],
        track_id=table[:, 0],
        begin=table[:, 1],
        end=table[:, 2],
        parent=table[:, 3],
        frame=np.array([row[0] for row in rows]),
        track=np.array([row[1] for row in rows]),
        label=np.array([row[1] for row in rows]),
        centroid=np.array([row[2] for row in rows]),
        box=np.array([row[3] for row in rows]),
        masks=FrameStack(lambda index: masks[index], masks.shape, masks.dtype),
    )


def test_every_task_is_tested_here() -> None:
    tested = {kind.name for kind in TaskConformance.__subclasses__()} | {TestSemanticSegmentation.name}
    assert tested == set(TASK_KINDS)


def test_an_unknown_task_and_unknown_arguments_are_refused() -> None:
    with pytest.raises(BundleError, match="expected one of the tasks"):
        get_task("divination")
    with pytest.raises(BundleError, match="depth"):
        get_task("segmentation", {"depth": 3})

"""Every pixel gets a class; unknown pixels teach and count nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cytoray_analysis.errors import DatasetError, RecipeError
from cytoray_analysis.tasks import SemanticSegmentation, get_task
from cytoray_analysis.tasks.class_values import class_indices

NAMES = ("background", "nucleus", "cytoplasm")


def truth() -> torch.Tensor:
    classes = torch.zeros((2, 16, 20), dtype=torch.int64)
    classes[0, 2:10, 2:14], classes[0, 4:8, 4:10] = 2, 1
    classes[1, 5:12, 8:18] = 2
    return classes


def as_outputs(classes: torch.Tensor) -> torch.Tensor:
    """The outputs of a network that has learnt the truth by heart."""
    return torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float() * 20


@pytest.mark.parametrize("dimensions", [2, 3])
def test_an_encoded_truth_decodes_to_the_same_classes(dimensions: int) -> None:
    task = SemanticSegmentation(dimensions=dimensions, classes=NAMES)
    classes = truth() if dimensions == 2 else truth().unsqueeze(1).repeat(1, 4, 1, 1)
    outputs = as_outputs(task.encode(classes)).numpy()
    answers = [task.decode(output, task.output.defaults()).values for output in outputs]
    scores = task.score(answers, list(classes.numpy()))
    assert answers[0].dtype == np.int32
    assert scores == dict.fromkeys(scores, 1.0)
    assert list(scores)[:3] == ["iou", "dice", "accuracy"]


def test_the_perfect_answer_costs_almost_nothing_and_a_wrong_one_costs_more() -> None:
    task = SemanticSegmentation(classes=NAMES)
    target = task.encode(truth())
    assert task.loss(as_outputs(target), target) < 0.02
    assert task.loss(as_outputs((target + 1) % 3), target) > 5


@pytest.mark.parametrize("unknown", [-1, 255])
def test_unknown_pixels_change_neither_loss_nor_gradient_nor_score(unknown: int) -> None:
    task = SemanticSegmentation(classes=NAMES)
    classes = truth()
    classes[:, :, 10:] = unknown
    outputs = torch.randn((2, 3, 16, 20), requires_grad=True)
    task.loss(outputs, task.encode(classes)).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert outputs.grad[:, :, :, 10:].abs().max() == 0
    assert outputs.grad[:, :, :, :10].abs().max() > 0
    wrong = classes.numpy().copy()
    wrong[:, :, 10:] = 1
    assert task.score(list(wrong), list(classes.numpy()))["accuracy"] == 1.0


def test_pixels_are_pooled_over_images() -> None:
    task = SemanticSegmentation(classes=NAMES)
    answers = [np.array([[0, 0, 1, 1]]), np.array([[0, 0, 0, 0]])]
    truths = [np.array([[0, 1, 1, 1]]), np.array([[0, 0, 0, 2]])]
    scores = task.score(answers, truths)
    assert scores["iou_background"] == pytest.approx(4 / 6)
    assert scores["iou_nucleus"] == pytest.approx(2 / 3)
    assert scores["dice_nucleus"] == pytest.approx(4 / 5)
    assert scores["iou_cytoplasm"] == 0
    assert scores["iou"] == pytest.approx((4 / 6 + 2 / 3 + 0) / 3)
    assert scores["accuracy"] == pytest.approx(6 / 8)


def test_a_class_that_occurs_nowhere_has_no_score_and_is_not_averaged() -> None:
    task = SemanticSegmentation(classes=NAMES)
    scores = task.score([np.array([[0, 1, 1, 1]])], [np.array([[0, 0, 1, 1]])])
    assert scores["iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert "iou_cytoplasm" not in scores
    assert set(scores) < set(task.output.metrics)


@pytest.mark.parametrize("value", [0, 255])
def test_a_background_everywhere_that_was_answered_with_background_is_not_perfect(value: int) -> None:
    truth = np.array([[0, 0, value, value]])
    assert SemanticSegmentation(classes=NAMES).score([np.zeros((1, 4), np.int32)], [truth]) == {}


def test_values_of_masks_are_mapped_to_classes() -> None:
    values = {"0": "background", "255": "nucleus", "7": "cytoplasm"}
    mask = np.array([[0, 255], [7, 0]], np.uint8)
    assert class_indices(mask, {"classes": list(NAMES), "values": values}, "mask").tolist() == [[0, 1], [2, 0]]
    with pytest.raises(DatasetError, match=r"expected the values 0, 7, 255 .* got 8"):
        class_indices(np.array([[0, 8]]), {"classes": list(NAMES), "values": values}, "mask")


@pytest.mark.parametrize("values", [{0: "background", 255: "nuclei"}, {"a": "nucleus"}, {-1: "nucleus"}])
def test_values_that_name_no_class_are_refused(values: dict[Any, str]) -> None:
    with pytest.raises(RecipeError) as caught:
        get_task("semantic_segmentation", {"classes": NAMES, "values": values})
    assert caught.value.field == "model.task.arguments.values"


def test_a_class_that_has_no_name_is_refused() -> None:
    task = SemanticSegmentation(classes=NAMES)
    with pytest.raises(DatasetError, match=r"expected classes 0 to 2 \(background, nucleus, cytoplasm\), got class 3"):
        task.encode(truth() + 1)
    with pytest.raises(DatasetError, match="got class 7"):
        task.score([np.zeros((2, 2), np.int32)], [np.full((2, 2), 7)])


@pytest.mark.parametrize("classes", [["cell"], ["cell", "cell"]])
def test_classes_that_cannot_be_distinguished_are_refused(classes: list[str]) -> None:
    with pytest.raises(RecipeError, match="expected 2 to 255 classes"):
        get_task("semantic_segmentation", {"classes": classes})

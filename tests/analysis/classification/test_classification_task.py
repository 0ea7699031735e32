"""The loss teaches the known classes, the answers are probabilities, and fitting makes them honest."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn import functional

from cytoray_analysis.cells import Cells
from cytoray_analysis.errors import BundleError
from cytoray_analysis.tasks.class_answers import Classes
from cytoray_analysis.tasks.classification import Classification, log_likelihood
from cytoray_analysis.tasks.fitting import fit_decode

NAMES = ("RBC", "WBC", "Platelets")


def logits(cells: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(3, (cells,), generator=generator)
    return torch.randn((cells, 3), generator=generator) * 2, target


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [1.0, 5.0, 0.5]])
def test_without_focusing_the_focal_loss_is_the_cross_entropy(smoothing: float, weights: list[float]) -> None:
    outputs, target = logits()
    focal = Classification(
        classes=NAMES, loss="focal", focal_gamma=0.0, label_smoothing=smoothing, class_weights=weights
    )
    weight = torch.tensor(weights)
    each = functional.cross_entropy(outputs, target, weight=weight, label_smoothing=smoothing, reduction="none")
    assert torch.allclose(focal.loss(outputs, target), each.mean() / weight.mean())


def test_the_focal_loss_looks_away_from_cells_that_are_right() -> None:
    task, plain = Classification(classes=NAMES, loss="focal"), Classification(classes=NAMES)
    right, wrong = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[0.0, 4.0, 0.0]])
    target = torch.tensor([0])
    assert task.loss(right, target) < 0.01 * plain.loss(right, target)
    assert task.loss(wrong, target) > 0.9 * plain.loss(wrong, target)


def test_cells_of_unknown_class_change_neither_loss_nor_gradient() -> None:
    task = Classification(classes=NAMES, counts=[30, 8, 2], class_weights="balanced", label_smoothing=0.1)
    outputs, target = logits()
    outputs.requires_grad_(True)
    known = task.loss(outputs[:20], target[:20])
    target[20:] = -1
    loss = task.loss(outputs, target)
    assert torch.allclose(loss, known)
    loss.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert outputs.grad[20:].abs().max() == 0
    assert task.loss(outputs, torch.full_like(target, -1)) == 0


def test_with_balanced_weights_every_class_weighs_the_same_in_all() -> None:
    counts = [800, 150, 50]
    task = Classification(classes=NAMES, counts=counts, class_weights="balanced")
    assert task.weights is not None
    assert (task.weights * torch.tensor(counts)).tolist() == pytest.approx([1000 / 3] * 3)


@pytest.mark.parametrize("weights", ["balanced", [1.0, 9.0]])
def test_a_rare_cell_pulls_as_hard_in_a_batch_of_any_size(weights: Literal["balanced"] | list[float]) -> None:
    task = Classification(classes=("common", "rare"), counts=[90, 10], class_weights=weights)
    truth = (torch.arange(160) % 10 == 0).long()
    pulls = []
    for size in (160, 16, 1):
        outputs = torch.zeros(len(truth), 2, requires_grad=True)
        for some, classes in zip(torch.split(outputs, size), torch.split(truth, size), strict=True):
            (task.loss(some, classes) * size).backward()  # type: ignore[no-untyped-call]
        assert outputs.grad is not None
        pull = outputs.grad[:, 0].abs()
        assert float(pull.mean()) == pytest.approx(0.5)  # as without weights: a cell weighs 1 on average
        pulls.append(float(pull[truth == 1].mean() / pull[truth == 0].mean()))
    assert pulls == pytest.approx([9.0] * 3)


def test_probabilities_sum_to_one_and_a_temperature_keeps_their_order() -> None:
    task = Classification(classes=NAMES)
    outputs = logits()[0].numpy()
    plain = task.decode(outputs, task.output.defaults()).values
    cooled = task.decode(outputs, {"temperature": 3.0}).values
    assert plain.dtype == np.float32
    assert plain.sum(axis=1) == pytest.approx(1.0)
    assert plain == pytest.approx(torch.from_numpy(outputs).softmax(1).numpy(), abs=1e-6)
    assert (plain.argsort(axis=1) == cooled.argsort(axis=1)).all()
    assert (cooled.max(axis=1) < plain.max(axis=1)).all()


@pytest.mark.parametrize("sharpness", [0.3, 4.0])
def test_the_fitted_temperature_is_the_one_that_the_outputs_need(sharpness: float) -> None:
    """Truth drawn from the outputs' own probabilities: sharpened outputs need exactly that temperature."""
    task = Classification(classes=NAMES)
    chance = np.random.default_rng(0)
    honest = chance.normal(size=(3000, 3)).astype(np.float32) * 2
    probabilities = task.decode(honest, task.output.defaults()).values
    truth = np.array([chance.choice(3, p=row / row.sum()) for row in probabilities.astype(np.float64)])
    outputs = [honest[:1000] * sharpness, honest[1000:] * sharpness]
    truths = [truth[:1000], truth[1000:]]
    fitted = fit_decode(task, outputs, truths)
    assert fitted["temperature"] == pytest.approx(sharpness, rel=0.1)
    before = [task.decode(output, task.output.defaults()).values for output in outputs]
    after = [task.decode(output, fitted).values for output in outputs]
    assert log_likelihood(after, truths) > log_likelihood(before, truths)
    scores, raw = task.score(after, truths), task.score(before, truths)
    assert scores["ece"] < 0.03 < raw["ece"]
    assert scores["accuracy"] == raw["accuracy"]


def test_top_k_names_the_most_probable_classes_first() -> None:
    probabilities = np.array([[0.2, 0.7, 0.1], [0.4, 0.2, 0.4]], np.float32)
    answer = Classes(NAMES, probabilities, Cells(np.zeros((2, 2, 2)), np.arange(1, 3)))
    assert len(answer) == 2
    assert answer.labels == ("WBC", "RBC")
    assert [[name for name, _ in cell] for cell in answer.top(2)] == [["WBC", "RBC"], ["RBC", "Platelets"]]
    assert [value for _, value in answer.top(9)[0]] == pytest.approx([0.7, 0.2, 0.1])


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"classes": ["RBC"]}, "classes"),
        ({"classes": ["RBC", "RBC"]}, "classes"),
        ({"classes": NAMES, "class_weights": "balanced"}, "counts"),
        ({"classes": NAMES, "class_weights": "inverse"}, "class_weights"),
        ({"classes": NAMES, "class_weights": [1.0]}, "class_weights"),
        ({"classes": NAMES, "class_weights": [0.0, 0.0, 1.0], "counts": [5, 5, 0]}, "class_weights"),
        ({"classes": NAMES, "class_weights": [1.0, 1.0, 1.0], "counts": [5, 5]}, "counts"),
        ({"classes": NAMES, "loss": "hinge"}, "loss"),
        ({"classes": NAMES, "label_smoothing": 1.0}, "label_smoothing"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(BundleError) as caught:
        Classification(**arguments)  # type: ignore[arg-type]
    assert caught.value.field == f"task.arguments.{field}"

"""Truth, turned into a target, decodes back into itself; unknown pixels teach nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cytoray_analysis.errors import BundleError, RecipeError
from cytoray_analysis.tasks import InstanceSegmentation, fit_decode, get_task


def squares() -> torch.Tensor:
    truth = torch.zeros((2, 48, 64), dtype=torch.int64)
    truth[0, 4:16, 4:16], truth[0, 4:16, 16:30], truth[0, 30:40, 40:60] = 1, 2, 300
    truth[1, 10:30, 10:30] = 7
    return truth


def as_outputs(task: InstanceSegmentation, target: torch.Tensor) -> torch.Tensor:
    """The outputs of a network that has learnt the target by heart."""
    return torch.cat(((target[:, :1] * 2 - 1) * 12, target[:, 3:] / task.offset_unit), dim=1)


def test_an_encoded_truth_decodes_to_the_same_objects() -> None:
    task = InstanceSegmentation()
    truth = squares()
    outputs = as_outputs(task, task.encode(truth)).numpy()
    answers = [task.decode(output, task.output.defaults()).values for output in outputs]
    scores = task.score(answers, list(truth.numpy()))
    assert next(iter(scores)) == "msa"
    wrong = ["count_error", "split", "merged", "missed", "invented"]
    assert list(scores)[-5:] == wrong
    assert [scores[name] for name in scores if name not in wrong] == [1.0] * (len(scores) - 5)
    assert [scores[name] for name in wrong] == [0.0] * 5


def test_a_bent_object_around_another_has_a_centre_of_its_own() -> None:
    """The centre of mass of a crescent lies in what it surrounds, where the votes of both would meet."""
    y, x = np.indices((64, 64)) - 32
    distance = np.hypot(y, x)
    truth = np.zeros((2, 64, 64), np.int64)
    truth[0][(distance > 12) & (distance < 20) & (x < 8)] = 3
    truth[0][distance < 9] = 1
    truth[1][5:20, 5:30] = 2
    task = InstanceSegmentation()
    target = task.encode(torch.from_numpy(truth))
    for batch, label in ((0, 1), (0, 3), (1, 2)):
        here = np.argwhere(truth[batch] == label)
        ends = (here + target[batch, 3:].numpy()[:, *here.T].T).round().astype(int)
        assert (truth[batch][tuple(ends.T)] == label).all()
    middle = target[1, 3:, 5:20, 5:30].numpy() + np.indices((15, 25)) + 5
    np.testing.assert_allclose(middle, np.broadcast_to([[[12.0]], [[17.0]]], middle.shape), atol=1e-4)
    answers = [task.decode(one, task.output.defaults()).values for one in as_outputs(task, target).numpy()]
    assert task.score(answers, list(truth))["ap90"] == 1.0


def test_volumes_are_encoded_and_decoded_by_the_same_code() -> None:
    task = InstanceSegmentation(dimensions=3)
    truth = torch.zeros((1, 10, 24, 24), dtype=torch.int64)
    truth[0, 2:8, 3:12, 3:12], truth[0, 2:8, 12:22, 3:12] = 1, 2
    outputs = as_outputs(task, task.encode(truth)).numpy()
    answer = task.decode(outputs[0], task.output.defaults()).values
    assert task.score([answer], [truth[0].numpy()])["ap90"] == 1.0


def test_offsets_along_z_are_learnt_in_pixels_of_the_plane() -> None:
    """So that a micrometre weighs alike along every axis, and distances mean one thing."""
    square, flat = InstanceSegmentation(dimensions=3), InstanceSegmentation(dimensions=3, anisotropy=2.5)
    truth = torch.zeros((1, 14, 24, 24), dtype=torch.int64)
    truth[0, 1:6, 3:12, 3:12], truth[0, 6:13, 3:12, 3:12] = 1, 2
    targets = square.encode(truth), flat.encode(truth)
    assert torch.equal(targets[1][:, 3], targets[0][:, 3] * 2.5)
    assert torch.equal(targets[1][:, 4:], targets[0][:, 4:])
    for task, target in zip((square, flat), targets, strict=True):
        answer = task.decode(as_outputs(task, target).numpy()[0], task.output.defaults()).values
        assert task.score([answer], [truth[0].numpy()])["ap90"] == 1.0
    margins = [task.output.margin(task.output.defaults(), None) for task in (square, flat)]
    assert isinstance(margins[0], tuple)
    assert isinstance(margins[1], tuple)
    assert margins[0][0] == margins[0][1] == margins[1][1] > margins[1][0]


def test_small_objects_weigh_more_in_and_around_them_where_that_is_wanted() -> None:
    truth = torch.zeros((1, 48, 48), dtype=torch.int64)
    truth[0, 2:10, 2:10], truth[0, 16:32, 16:32] = 1, 2
    weight = InstanceSegmentation(boundary_weight=0.0, small_weight=2.0).encode(truth)[0, 1]
    assert (weight[truth[0] == 1] == 3).all()  # 64 pixels
    assert (weight[truth[0] == 2] == 1.5).all()  # 256 pixels
    assert weight[1, 5] == weight[12, 5] == 3  # so that small objects do not become too large
    assert weight[13, 5] == weight[40, 40] == 1


@pytest.mark.parametrize("arguments", [{"anisotropy": 2.0}, {"dimensions": 3, "anisotropy": 0.0}, {"dimensions": 4}])
def test_a_geometry_that_there_is_not_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="expected 2 dimensions, or 3 and a positive anisotropy"):
        InstanceSegmentation(**arguments)


def test_confidence_follows_its_calibration() -> None:
    task = InstanceSegmentation()
    output = as_outputs(task, task.encode(squares())).numpy()[0]
    output[0] /= 6
    defaults = task.output.defaults()
    raw = task.decode(output, defaults).confidence
    assert raw is not None
    assert raw.shape == (4,)
    assert raw[1:] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-3)
    doubted = task.decode(output, defaults | {"confidence_slope": 1.0, "confidence_offset": -2.0}).confidence
    assert doubted is not None
    assert doubted[1:] == pytest.approx(0.5, abs=1e-3)
    assert raw[0] == doubted[0] == 0


def test_the_perfect_answer_costs_almost_nothing_and_a_wrong_one_costs_more() -> None:
    task = InstanceSegmentation()
    target = task.encode(squares())
    perfect = as_outputs(task, target)
    assert task.loss(perfect, target) < 0.01
    assert task.loss(-perfect, target) > 1
    assert task.loss(perfect + torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1), target) > 0.5


def test_unknown_pixels_change_neither_loss_nor_gradient() -> None:
    task = InstanceSegmentation()
    truth = squares()
    truth[:, :, 50:] = -1
    target = task.encode(truth)
    outputs = torch.randn((2, 3, 48, 64), requires_grad=True)
    task.loss(outputs, target).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert outputs.grad[:, :, :, 51:].abs().max() == 0
    assert outputs.grad[:, :, :, :50].abs().max() > 0


def test_fitting_finds_the_threshold_that_the_outputs_need() -> None:
    task = InstanceSegmentation()
    truth = squares()
    outputs = as_outputs(task, task.encode(truth))
    outputs[:, 0] = outputs[:, 0] / 12 * 0.2 - 1.1  # foreground logits lie at −0.9, background at −1.3
    fitted = fit_decode(task, list(outputs.numpy()), list(truth.numpy()))
    assert -1.3 < fitted["foreground"] < -0.9
    answers = [task.decode(output, fitted).values for output in outputs.numpy()]
    assert task.score(answers, list(truth.numpy()))["ap90"] == 1.0


def test_decoding_is_quick() -> None:
    """At least ten megapixels a second here, several times more on a quiet machine (docs/benchmarks.md)."""
    import time

    task = InstanceSegmentation()
    truth = torch.zeros((1, 1024, 1024), dtype=torch.int64)
    number = 0
    for y in range(8, 1000, 32):
        for x in range(8, 1000, 32):
            number += 1
            truth[0, y : y + 20, x : x + 20] = number
    output = as_outputs(task, task.encode(truth)).numpy()[0]
    parameters = task.output.defaults()
    assert task.decode(output, parameters).values.max() == number
    seconds = []
    for _ in range(3):
        start = time.process_time()
        task.decode(output, parameters)
        seconds.append(time.process_time() - start)
    assert np.prod(output.shape[1:]) / min(seconds) > 10e6


@pytest.mark.parametrize(("name", "arguments"), [("segment", {}), ("segmentation", {"colour": 1})])
def test_an_unknown_task_or_argument_is_refused(name: str, arguments: dict[str, int]) -> None:
    with pytest.raises(BundleError, match=r"expected one of the tasks|colour"):
        get_task(name, arguments)

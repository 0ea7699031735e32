"""The label-free task: scaling there and back, losses that see what they should, uncertainty that is told right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity as reference

from cytoray_analysis.errors import RecipeError
from cytoray_analysis.tasks.image_losses import LOSSES, structural_similarity
from cytoray_analysis.tasks.label_free import LabelFree


def smooth(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rough = torch.randn(shape, generator=generator)
    planes = torch.nn.functional.avg_pool2d(rough.flatten(0, -3).unsqueeze(1), 5, stride=1, padding=2)
    return planes.view(shape) * 4


@settings(max_examples=30, deadline=None)
@given(
    offsets=st.lists(st.floats(-1e3, 1e4), min_size=1, max_size=3),
    factor=st.floats(1e-4, 10),
    dimensions=st.sampled_from([2, 3]),
)
def test_decoding_undoes_encoding(offsets: list[float], factor: float, dimensions: int) -> None:
    names = [f"stain {index}" for index in range(len(offsets))]
    task = LabelFree(dimensions=dimensions, channels=names, offset=offsets, scale=[factor] * len(names))
    truth = torch.from_numpy(np.random.default_rng(0).uniform(0, 4000, (1, len(names), *(4,) * dimensions)))
    encoded = task.encode(truth.float())
    answer = task.decode(encoded[0].numpy(), {}).values
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, truth[0].numpy(), rtol=1e-3, atol=1e-2 * max(1.0, *map(abs, offsets)) / 10)


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("shape", [(2, 1, 64, 48), (2, 2, 3, 32, 32)])
def test_every_loss_is_nothing_for_the_truth_and_grows_with_the_error(loss: str, shape: tuple[int, ...]) -> None:
    task = LabelFree(
        dimensions=len(shape) - 2, channels=["a", "b"][: shape[1]], offset=[0] * shape[1], scale=[1] * shape[1],
        loss={loss: 1.0},
    )  # fmt: skip
    truth, error = smooth(0, shape), smooth(1, shape)
    none, little, much = (float(task.loss(truth + strength * error, truth)) for strength in (0.0, 0.3, 1.0))
    assert none == pytest.approx(0.0, abs=1e-5)
    assert 0 < little < much


@pytest.mark.parametrize("loss", [{name: 1.0} for name in LOSSES] + [{"l1": 0.5, "ms_ssim": 0.5}])
@pytest.mark.parametrize("uncertainty", [False, True])
def test_unknown_pixels_give_no_gradient_and_no_nan(loss: dict[str, float], uncertainty: bool) -> None:
    task = LabelFree(loss=loss, uncertainty=uncertainty)
    target = smooth(0, (2, 1, 48, 48))
    target[:, :, :, 20:] = math.nan
    outputs = smooth(1, (2, task.output.channels, 48, 48)).requires_grad_()
    task.loss(outputs, target).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()
    assert outputs.grad[:, :, :, :20].abs().max() > 0
    beyond_a_window = 20 + 11 * 4 if "ms_ssim" in loss else 20
    assert outputs.grad[:, :, :, beyond_a_window:].abs().sum() == 0


def test_a_batch_of_which_nothing_is_known_costs_nothing() -> None:
    task = LabelFree(loss={"mse": 1.0, "l1": 1.0, "ms_ssim": 1.0}, uncertainty=True)
    outputs = smooth(0, (1, 2, 32, 32)).requires_grad_()
    loss = task.loss(outputs, torch.full((1, 1, 32, 32), math.nan))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()


def test_structural_loss_has_a_gradient_where_prediction_and_truth_are_opposite() -> None:
    target = smooth(0, (2, 1, 64, 64))
    outputs = (-target).requires_grad_()
    loss = LabelFree(loss={"ms_ssim": 1.0}).loss(outputs, target)
    loss.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()
    assert loss.item() > 0.5


def test_structural_similarity_is_that_of_scikit_image() -> None:
    predicted, true = smooth(0, (1, 1, 40, 50)), smooth(1, (1, 1, 40, 50))
    expected = reference(  # type: ignore[no-untyped-call]
        true[0, 0].numpy().astype(float), predicted[0, 0].numpy().astype(float), data_range=10.0,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
    )[1]  # fmt: skip
    mine = structural_similarity(predicted, true)[0][0, 0].numpy()
    np.testing.assert_allclose(mine, expected[5:-5, 5:-5], atol=1e-4)


def test_weights_mix_losses() -> None:
    outputs, target = smooth(0, (1, 1, 32, 32)), smooth(1, (1, 1, 32, 32))
    parts = {name: float(LabelFree(loss={name: 1.0}).loss(outputs, target)) for name in ("mse", "l1")}
    mixed = float(LabelFree(loss={"mse": 0.5, "l1": 2.0}).loss(outputs, target))
    assert mixed == pytest.approx(0.5 * parts["mse"] + 2.0 * parts["l1"], rel=1e-5)


def test_uncertainty_does_not_change_what_the_prediction_learns() -> None:
    target = smooth(0, (1, 1, 32, 32))
    gradients = []
    for uncertainty in (False, True):
        task = LabelFree(loss={"mse": 1.0}, uncertainty=uncertainty)
        outputs = smooth(1, (1, 2, 32, 32))[:, : task.output.channels].clone().requires_grad_()
        task.loss(outputs, target).backward()  # type: ignore[no-untyped-call]
        assert outputs.grad is not None
        gradients.append(outputs.grad[:, :1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_likelihood_finds_the_size_of_the_error_and_coverage_confirms_it() -> None:
    generator = torch.Generator().manual_seed(0)
    size = torch.rand((1, 1, 64, 64), generator=generator) * 2 + 0.2
    target = torch.randn((1, 1, 64, 64), generator=generator) * size
    task = LabelFree(offset=[500.0], scale=[0.01], loss={"l1": 1.0}, uncertainty=True)
    # What is told is a function of the true size; the likelihood is best where it is that size.
    likelihoods = {
        factor: float(task.loss(torch.cat((torch.zeros_like(target), (size * factor).log()), 1), target))
        for factor in (0.5, 0.8, 1.0, 1.25, 2.0)
    }
    assert min(likelihoods, key=lambda factor: likelihoods[factor]) == 1.0
    outputs = torch.cat((torch.zeros_like(target), size.log()), 1)[0].numpy()
    answer = task.decode(outputs, {}).values
    np.testing.assert_allclose(answer[1], size[0, 0].numpy() * 100, rtol=1e-4)
    truth = task.decode(np.concatenate((target[0].numpy(), outputs[1:])), {}).values[:1]
    assert task.score([answer], [truth])["coverage68"] == pytest.approx(0.683, abs=0.03)


def test_output_says_what_the_network_must_give() -> None:
    plain = LabelFree(channels=["a", "b"], offset=[0, 0], scale=[1, 1])
    sure = LabelFree(channels=["a", "b"], offset=[0, 0], scale=[1, 1], uncertainty=True)
    assert (plain.output.channels, sure.output.channels) == (2, 4)
    assert (plain.output.per, plain.output.truth) == ("pixel", "image")
    assert sure.output.margin(sure.output.defaults(), None) == 0


def test_decoding_a_part_gives_that_part_of_the_whole() -> None:
    task = LabelFree(offset=[300.0], scale=[0.002], uncertainty=True)
    outputs = smooth(0, (1, 2, 40, 40))[0].numpy()
    whole = task.decode(outputs, {}).values
    part = task.decode(outputs[:, 8:24, 16:], {}).values
    np.testing.assert_array_equal(part, whole[:, 8:24, 16:])


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"loss": {"huber": 1.0}}, "model.task.arguments.loss"),
        ({"loss": {"l1": 0.0}}, "model.task.arguments.loss"),
        ({"channels": ["a", "b"]}, "model.task.arguments.channels"),
        ({"scale": [0.0]}, "model.task.arguments.channels"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(RecipeError) as caught:
        LabelFree(**arguments)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_crops_too_small_for_structure_are_refused() -> None:
    with pytest.raises(RecipeError, match="at least 11 pixels"):
        LabelFree(loss={"ms_ssim": 1.0}).loss(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))

"""Batches are varied without losing which pixel belongs to which object."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from cytoray_analysis.augmentation import Augmentation, augment

STILL = Augmentation(
    flips=False, rotation=0, zoom=(1, 1), elastic=0, gain=0, offset=0, gamma=(1, 1), colour=0, noise=0, blur=0
)


def batch(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose brightness is their label, so that a pixel tells where it came from."""
    weights = (2, 7, 3)[-len(shape) :]
    places = torch.meshgrid(*(torch.arange(side) // 16 for side in shape), indexing="ij")
    labels = sum(weight * place for weight, place in zip(weights, places, strict=True)) % 5
    labels = torch.as_tensor(labels).expand(3, *shape).contiguous()
    return (labels.float() / 5).unsqueeze(1).repeat(1, 2, *(1,) * len(shape)), labels


CROPS = [(64, 64), (48, 64), (24, 48, 48)]


@pytest.mark.parametrize("crop", CROPS, ids=str)
def test_nothing_changes_when_everything_is_turned_off(crop: tuple[int, ...]) -> None:
    images, labels = batch(crop)
    assert STILL.window(crop) == crop
    out, chosen = augment(images, labels, crop, STILL, torch.Generator().manual_seed(0))
    assert torch.allclose(out, images, atol=1e-5)
    assert torch.equal(chosen, labels)


CHANGES = pytest.mark.parametrize(
    "change",
    [{"flips": True}, {"rotation": 1.0}, {"zoom": (0.7, 1.4)}, {"elastic": 4.0}],
    ids=lambda item: next(iter(item)),
)


@CHANGES
@pytest.mark.parametrize("crop", CROPS, ids=str)
def test_image_and_labels_move_together(change: dict[str, object], crop: tuple[int, ...]) -> None:
    augmentation = STILL.model_copy(update=change)
    images, labels = batch(augmentation.window(crop))
    out, chosen = augment(images, labels, crop, augmentation, torch.Generator().manual_seed(1))
    assert out.shape == (3, 2, *crop)
    known = chosen >= 0
    assert known.float().mean() > 0.7
    # Linear and nearest reading may differ beside edges between blocks only.
    agree = (out[:, 0] - chosen / 5).abs() < 0.02
    assert agree[known].float().mean() > 0.7
    assert not torch.equal(chosen, labels[(slice(None), *(slice(0, side) for side in crop))])


@pytest.mark.slow
@CHANGES
@pytest.mark.parametrize("crop", CROPS, ids=str)
def test_image_and_target_image_move_together(change: dict[str, object], crop: tuple[int, ...]) -> None:
    augmentation = STILL.model_copy(update=change)
    images, _ = batch(augmentation.window(crop))
    target = 3 * images[:, :1] - 1
    out, read = augment(images, target, crop, augmentation, torch.Generator().manual_seed(2))
    assert read.shape == (3, 1, *crop)
    known = torch.isfinite(read)
    assert known.float().mean() > 0.7
    assert torch.allclose(read[known], (3 * out[:, :1] - 1)[known], atol=1e-3)


def test_intensities_of_a_target_are_left_alone() -> None:
    """What is to be predicted is measured in units that mean something; only the input is varied."""
    changed = Augmentation(flips=False, rotation=0, zoom=(1, 1), elastic=0)
    images, _ = batch((64, 64))
    target = torch.rand((3, 2, 64, 64))
    out, read = augment(images, target, (64, 64), changed, torch.Generator().manual_seed(2))
    assert torch.allclose(read, target, atol=1e-5)
    assert not torch.allclose(out, images, atol=1e-2)


def test_an_unknown_pixel_of_a_target_spreads_to_its_neighbours_only() -> None:
    augmentation = STILL.model_copy(update={"elastic": 4.0})
    images, _ = batch((64, 64))
    target = images[:, :1].clone()
    target[:, :, 20:30, 20:30] = torch.nan
    _, read = augment(images, target, (64, 64), augmentation, torch.Generator().manual_seed(2))
    assert read[:, :, 25, 25].isnan().all()
    # The square of 100 pixels, and a rim of about one.
    assert 100 <= read[:, :, 10:42, 10:42].isnan().sum() / 3 <= 170
    assert read[:, :, 40:56, 40:56].isfinite().all()


@pytest.mark.parametrize("truth", [torch.tensor([4, 0, -1]), torch.rand(3)], ids=["classes", "numbers"])
def test_truth_about_a_whole_crop_is_left_alone(truth: torch.Tensor) -> None:
    images, _ = batch((96, 96))
    out, same = augment(images, truth, (64, 64), Augmentation(), torch.Generator().manual_seed(2))
    assert same is truth
    assert out.shape == (3, 2, 64, 64)


@pytest.mark.parametrize("crop", [(64, 64), (24, 48, 48)], ids=str)
def test_where_no_truth_says_that_a_pixel_is_unknown_the_border_goes_on(crop: tuple[int, ...]) -> None:
    """As beyond the border of an image at inference: a network for cells must not learn what black corners mean."""
    augmentation = STILL.model_copy(update={"rotation": 1.0, "flips": True, "zoom": (0.5, 0.5)})
    images = torch.full((16, 2, *crop), 0.7)
    of_cells, _ = augment(images, torch.zeros(16, dtype=torch.int64), crop, augmentation, torch.Generator())
    assert torch.allclose(of_cells, torch.tensor(0.7), atol=1e-5)
    unknown = torch.zeros((16, *crop), dtype=torch.int64)
    of_pixels, labels = augment(images, unknown, crop, augmentation, torch.Generator())
    assert (of_pixels[:, 0][labels < 0] < 0.7).all()
    assert (labels < 0).float().mean() > 0.5


def test_volumes_are_turned_in_their_plane_only() -> None:
    augmentation = STILL.model_copy(update={"rotation": 1.0, "flips": True})
    crop = (8, 32, 32)
    depth = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(16, 1, 8, 48, 48)
    out, _ = augment(depth, torch.zeros(16), crop, augmentation, torch.Generator().manual_seed(0))
    upright, mirrored = torch.arange(8.0).view(8, 1, 1), torch.arange(7.0, -1, -1).view(8, 1, 1)
    inner = out[:, 0, :, 8:24, 8:24]
    matches = [
        bool(torch.allclose(item, way.expand_as(item), atol=1e-3)) for way in (upright, mirrored) for item in inner
    ]
    assert sum(matches[:16]) + sum(matches[16:]) == 16
    assert 0 < sum(matches[:16]) < 16


@pytest.mark.slow
@pytest.mark.parametrize("crop", [*CROPS, (16, 96, 96)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_a_crop_hardly_leaves_the_window_that_is_read_for_it(crop: tuple[int, ...], seed: int) -> None:
    augmentation = Augmentation()
    window = augmentation.window(crop)
    assert all(side >= length for side, length in zip(window, crop, strict=True))
    assert window[:-2] <= tuple(1.6 * length for length in crop[:-2])  # no margin for turning along Z
    images, labels = batch(window)
    _, chosen = augment(images, labels, crop, augmentation, torch.Generator().manual_seed(seed))
    assert (chosen >= 0).float().mean() > 0.9


def test_what_lies_outside_is_unknown() -> None:
    augmentation = STILL.model_copy(update={"zoom": (0.4, 0.4)})
    images, labels = batch((96, 96))
    _, chosen = augment(images, labels, (64, 64), augmentation, torch.Generator().manual_seed(0))
    assert (chosen[:, 0, 0] == -1).all()
    assert (chosen[:, 32, 32] >= 0).all()
    _, read = augment(images, images, (64, 64), augmentation, torch.Generator().manual_seed(0))
    assert read[:, :, 0, 0].isnan().all()
    assert read[:, :, 32, 32].isfinite().all()


@pytest.mark.parametrize("crop", CROPS, ids=str)
def test_the_same_seed_gives_the_same_batch(crop: tuple[int, ...]) -> None:
    augmentation = Augmentation()
    images, labels = batch(augmentation.window(crop))
    first = augment(images, labels, crop, augmentation, torch.Generator().manual_seed(5))
    again = augment(images, labels, crop, augmentation, torch.Generator().manual_seed(5))
    other = augment(images, labels, crop, augmentation, torch.Generator().manual_seed(6))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.isfinite(first[0]).all()


INTENSITIES = [{"invert": 1.0}, {"mixing": 1.0}, {"gradient": 2.0}, {"jpeg": 1.0}, {"drop": 1.0}]


@pytest.mark.parametrize("change", INTENSITIES, ids=lambda item: next(iter(item)))
@pytest.mark.parametrize("crop", CROPS, ids=str)
def test_intensities_change_and_labels_stay(change: dict[str, float], crop: tuple[int, ...]) -> None:
    images, labels = batch(crop)
    images[:, 1] *= 0.5
    out, chosen = augment(images, labels, crop, STILL.model_copy(update=change), torch.Generator().manual_seed(2))
    assert torch.equal(chosen, labels)
    assert out.shape == images.shape
    assert torch.isfinite(out).all()
    assert not torch.allclose(out, images, atol=1e-3)


def changed(images: torch.Tensor, labels: torch.Tensor, change: dict[str, float]) -> torch.Tensor:
    augmentation = STILL.model_copy(update=change)
    return augment(images, labels, tuple(labels.shape[1:]), augmentation, torch.Generator().manual_seed(3))[0]


def one_change(change: dict[str, float]) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = batch((60, 64))
    images[:, 1] *= 0.5
    return images, changed(images, labels, change)


def test_an_inverted_crop_is_dark_on_bright() -> None:
    before, after = one_change({"invert": 1.0})
    assert torch.allclose(after, 1 - before, atol=1e-5)


def test_mixed_channels_lie_between_the_channels() -> None:
    before, after = one_change({"mixing": 1.0})
    low, high = before.amin(1, keepdim=True), before.amax(1, keepdim=True)
    assert (after >= low - 1e-5).all()
    assert (after <= high + 1e-5).all()


def test_illumination_changes_smoothly_and_keeps_the_middle() -> None:
    before, after = one_change({"gradient": 2.0})
    factor = (after / before)[before > 0]
    assert factor.min() < 0.9
    assert factor.max() > 1.1
    assert factor.log().mean().abs() < 0.1


def test_compression_stays_close_and_removes_fine_differences() -> None:
    before, after = one_change({"jpeg": 1.0})
    assert (after - before).abs().mean() < 0.03
    noise = torch.rand((3, 1, 64, 64), generator=torch.Generator().manual_seed(0)) * 0.02
    labels = torch.zeros((3, 64, 64), dtype=torch.int64)
    assert changed(noise, labels, {"jpeg": 1.0}).std() < noise.std()


def test_one_channel_of_a_crop_is_dropped() -> None:
    before, after = one_change({"drop": 1.0})
    empty = (after == 0).flatten(2).all(2)
    assert (empty.sum(1) == 1).all()
    assert torch.allclose(after[~empty], before[~empty], atol=1e-5)


def test_a_value_out_of_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="rotation"):
        Augmentation(rotation=2.0)

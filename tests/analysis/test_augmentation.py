"""Batches are varied without losing which pixel belongs to which object."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from cytoray_analysis.augmentation import Augmentation, augment

STILL = Augmentation(
    flips=False, rotation=0, zoom=(1, 1), elastic=0, gain=0, offset=0, gamma=(1, 1), colour=0, noise=0, blur=0
)


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose brightness is their label, so that a pixel tells where it came from."""
    rows = torch.arange(size).view(-1, 1) // 16
    columns = torch.arange(size).view(1, -1) // 16
    labels = (rows * 7 + columns * 3) % 5
    labels = labels.expand(3, size, size).contiguous()
    return (labels.float() / 5).unsqueeze(1).repeat(1, 2, 1, 1), labels


def test_nothing_changes_when_everything_is_turned_off() -> None:
    images, labels = batch(64)
    assert STILL.window(64) == 64
    out, chosen = augment(images, labels, 64, STILL, torch.Generator().manual_seed(0))
    assert torch.allclose(out, images, atol=1e-5)
    assert torch.equal(chosen, labels)


@pytest.mark.parametrize(
    "change",
    [{"flips": True}, {"rotation": 1.0}, {"zoom": (0.7, 1.4)}, {"elastic": 4.0}],
    ids=lambda item: next(iter(item)),
)
def test_image_and_labels_move_together(change: dict[str, object]) -> None:
    augmentation = STILL.model_copy(update=change)
    crop = 64
    images, labels = batch(augmentation.window(crop))
    out, chosen = augment(images, labels, crop, augmentation, torch.Generator().manual_seed(1))
    assert out.shape == (3, 2, crop, crop)
    known = chosen >= 0
    assert known.float().mean() > 0.7
    # Bilinear and nearest reading may differ beside edges between blocks only.
    agree = (out[:, 0] - chosen / 5).abs() < 0.02
    assert agree[known].float().mean() > 0.75
    assert not torch.equal(chosen, labels[:, :crop, :crop])


def test_what_lies_outside_is_unknown() -> None:
    augmentation = STILL.model_copy(update={"zoom": (0.4, 0.4)})
    images, labels = batch(96)
    _, chosen = augment(images, labels, 64, augmentation, torch.Generator().manual_seed(0))
    assert (chosen[:, 0, 0] == -1).all()
    assert (chosen[:, 32, 32] >= 0).all()


def test_the_same_seed_gives_the_same_batch() -> None:
    augmentation = Augmentation()
    images, labels = batch(augmentation.window(64))
    first = augment(images, labels, 64, augmentation, torch.Generator().manual_seed(5))
    again = augment(images, labels, 64, augmentation, torch.Generator().manual_seed(5))
    other = augment(images, labels, 64, augmentation, torch.Generator().manual_seed(6))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.isfinite(first[0]).all()


def test_a_value_out_of_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="rotation"):
        Augmentation(rotation=2.0)

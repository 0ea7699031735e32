"""The map shows where a network looked, and the pictures show what they say."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import matplotlib.image
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import ResNetConfig, ViTConfig

from cytoray_analysis.attention_map import attention_map
from cytoray_analysis.class_pictures import attention_overlay, confusion_picture, mistaken_cells
from cytoray_analysis.errors import RequestError
from cytoray_analysis.networks import UNet, fuse_batch_norm
from cytoray_analysis.networks.classifier import Classifier
from cytoray_analysis.networks.cnn import CNN
from cytoray_analysis.networks.linear import LinearClassifier
from cytoray_analysis.networks.pretrained import PretrainedTrunk
from cytoray_analysis.networks.resnet import ResNet, UNetEncoder
from cytoray_analysis.tasks.class_scores import count_confusions
from cytoray_analysis.tasks.classification import Classification

SIDE = 24


def spotted_cells(dimensions: int, seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.int64]]:
    """Noisy cells, every second one with a bright spot somewhere; windows, classes, places of the spots."""
    chance = np.random.default_rng(seed)
    shape = (SIDE,) * dimensions
    windows = chance.normal(0, 0.1, (count, 1, *shape)).astype(np.float32)
    axes = np.indices(shape)
    middle = (np.square(axes - SIDE / 2).sum(0) < 9**2) * 0.3
    places = chance.integers(6, SIDE - 6, (count, dimensions))
    truth = np.arange(count) % 2
    for window, place, spotted in zip(windows, places, truth, strict=True):
        distance = np.square(axes - place.reshape(-1, *(1,) * dimensions)).sum(0)
        window[0] += middle + (dimensions - 1) * spotted * np.exp(-distance / 8)
    return torch.from_numpy(windows), torch.from_numpy(truth), places


KINDS: dict[str, Callable[..., Classifier]] = {"cnn": CNN, "resnet": ResNet, "unet_encoder": UNetEncoder}


@cache
def trained(kind: str, dimensions: int) -> Classifier:
    torch.manual_seed(0)
    network = KINDS[kind](dimensions=dimensions, inputs=1, outputs=2, widths=(8, 16), dropout=0.0)
    task = Classification(classes=["plain", "spotted"])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2 if dimensions == 2 else 3e-2)
    for step in range(30):
        windows, truth, _ = spotted_cells(dimensions, step, 8)
        optimizer.zero_grad()
        task.loss(network(windows), truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dimensions"), [("cnn", 2), ("resnet", 2), ("unet_encoder", 2), ("cnn", 3)])
def test_the_network_looked_at_the_spot(kind: str, dimensions: int) -> None:
    network = trained(kind, dimensions)
    windows, truth, places = spotted_cells(dimensions, 999, 12)
    with torch.no_grad():
        assert (network(windows).argmax(1) == truth).float().mean() >= 0.9
    found = []
    for window, place in zip(windows[truth == 1].numpy(), places[truth.numpy() == 1], strict=True):
        heat = attention_map(network, window, 1)
        assert heat.shape == (SIDE,) * dimensions
        assert heat.dtype == np.float32
        assert heat.min() >= 0
        assert heat.max() == pytest.approx(1.0)
        found.append(np.abs(np.unravel_index(heat.argmax(), heat.shape) - place).max() <= 5)
    assert np.mean(found) >= 0.8


def test_folding_batch_norms_does_not_change_the_map() -> None:
    network = trained("resnet", 2)
    window = spotted_cells(2, 5, 2)[0][1].numpy()
    assert attention_map(fuse_batch_norm(network), window, 1) == pytest.approx(
        attention_map(network, window, 1), abs=1e-3
    )


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_linear_classifier_looks_where_its_weights_are(dimensions: int) -> None:
    network = LinearClassifier(dimensions=dimensions, inputs=2, outputs=2, side=4).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        weights = network.head.weight[1, : 2 * 4**dimensions].view(2, *(4,) * dimensions)
        weights[(1, *(2,) * dimensions)] = -3.0
    heat = attention_map(network, np.random.default_rng(0).random((2, *(16,) * dimensions), np.float32), 1)
    expected = np.zeros((16,) * dimensions, np.float32)
    expected[(slice(8, 12),) * dimensions] = 1.0
    assert heat == pytest.approx(expected)


@pytest.mark.parametrize(
    "config",
    [
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"),
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8),
    ],
    ids=["resnet", "vit"],
)
def test_models_of_transformers_show_where_they_look_too(config: ResNetConfig | ViTConfig) -> None:
    torch.manual_seed(3)
    network = PretrainedTrunk(inputs=1, outputs=3, window=32, config=config.to_dict())
    window = np.random.default_rng(0).random((1, 32, 32), np.float32)
    maps = [attention_map(network, window, index) for index in range(3)]
    assert all(heat.shape == (32, 32) and 0 <= heat.min() <= heat.max() <= 1 for heat in maps)
    assert max(heat.max() for heat in maps) == pytest.approx(1.0)


def test_what_has_no_map_is_refused() -> None:
    window = np.zeros((1, SIDE, SIDE), np.float32)
    with pytest.raises(RequestError, match="classifies cells"):
        attention_map(UNet(inputs=1, outputs=3, widths=(4, 4)), window, 0)
    with pytest.raises(RequestError, match="class from 0 to 1"):
        attention_map(trained("cnn", 2), window, 2)


def read_png(picture: bytes) -> NDArray[np.float32]:
    pixels: NDArray[np.float32] = matplotlib.image.imread(io.BytesIO(picture), format="png")[..., :3]
    return pixels


def test_the_picture_of_a_perfect_confusion_matrix_is_dark_on_its_diagonal_only() -> None:
    truth = np.array([0] * 50 + [1] * 3 + [2])
    names = ["red cell", "white cell", "platelet"]
    perfect = read_png(confusion_picture(count_confusions(np.eye(3)[truth], truth, 3), names))
    wrong = read_png(confusion_picture(count_confusions(np.eye(3)[(truth + 1) % 3], truth, 3), names))
    assert perfect.shape == wrong.shape
    dark = [(pixels.max(axis=2) < 0.5) & (pixels[..., 2] > pixels[..., 0] + 0.2) for pixels in (perfect, wrong)]
    assert dark[0].sum() > 1000
    assert (dark[0] & dark[1]).sum() < 0.2 * dark[0].sum()


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_sheet_of_mistakes_grows_with_them(dimensions: int) -> None:
    truth = np.arange(20) % 2
    windows = np.random.default_rng(0).random((20, 3, *(16,) * dimensions))
    names = ["red cell", "white cell"]
    right = mistaken_cells(windows, np.eye(2)[truth], truth, names)
    wrong = mistaken_cells(windows, np.eye(2)[1 - truth], truth, names, at_most=9, columns=4)
    assert read_png(right).shape[0] < read_png(wrong).shape[0]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_overlay_is_grey_where_the_network_did_not_look(dimensions: int) -> None:
    window = np.random.default_rng(0).random((3, *(16,) * dimensions))
    attention = np.zeros((16,) * dimensions, np.float32)
    attention[..., 8:] = 1.0
    picture = attention_overlay(window, attention)
    assert picture.shape == (16, 16, 3)
    assert (np.ptp(picture[:, :8].astype(int), axis=2) == 0).all()
    assert (picture[:, 8:, 0] > picture[:, 8:, 2]).all()

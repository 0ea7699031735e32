"""Every classifier answers for images and volumes, learns all its weights, and keeps a frozen trunk still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from cytoray_analysis.networks.classifier import Classifier, freeze_trunk, trunk_parameters
from cytoray_analysis.networks.cnn import CNN
from cytoray_analysis.networks.fusion import fuse_batch_norm
from cytoray_analysis.networks.linear import LinearClassifier
from cytoray_analysis.networks.resnet import ResNet, UNetEncoder
from cytoray_analysis.tasks.classification import Classification

SMALL: dict[Callable[..., Classifier], dict[str, Any]] = {
    LinearClassifier: {"side": 4},
    CNN: {"widths": (4, 8), "feature_dropout": 0.1},
    ResNet: {"widths": (4, 8), "blocks": 1},
    UNetEncoder: {"widths": (4, 8, 8)},
}
KINDS = pytest.mark.parametrize("kind", list(SMALL), ids=lambda kind: kind.__name__)


def build(kind: Callable[..., Classifier], **arguments: Any) -> Classifier:
    torch.manual_seed(0)
    return kind(**(SMALL[kind] | {"inputs": 2, "outputs": 5} | arguments))


@KINDS
@pytest.mark.parametrize("window", [(24, 24), (17, 31), (8, 16, 16), (3, 9, 20)])
def test_windows_of_any_size_get_one_logit_per_class(kind: Callable[..., Classifier], window: tuple[int, ...]) -> None:
    network = build(kind, dimensions=len(window)).eval()
    with torch.no_grad():
        assert network(torch.rand((3, 2, *window))).shape == (3, 5)
    assert network.stride == (1,) * len(window)
    assert network.halo == (0,) * len(window)
    assert network.bytes_per_pixel(4) > network.bytes_per_pixel(2) > 0


@KINDS
def test_every_weight_learns(kind: Callable[..., Classifier]) -> None:
    network = build(kind)
    logits: torch.Tensor = network(torch.rand((4, 2, 16, 16)))
    logits.square().sum().backward()  # type: ignore[no-untyped-call]
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


@KINDS
def test_answers_do_not_depend_on_the_other_cells_of_a_batch(kind: Callable[..., Classifier]) -> None:
    network = build(kind).eval()
    windows = torch.rand((4, 2, 16, 16))
    with torch.no_grad():
        assert torch.allclose(network(windows)[2:3], network(windows[2:3]), atol=1e-6)


@KINDS
def test_folded_batch_norms_give_the_same_answers(kind: Callable[..., Classifier]) -> None:
    network = build(kind)
    network(torch.rand((8, 2, 16, 16)))  # moves the statistics away from 0 and 1
    network.eval()
    windows = torch.rand((2, 2, 16, 16))
    with torch.no_grad():
        assert torch.allclose(fuse_batch_norm(network)(windows), network(windows), atol=1e-5)


@KINDS
def test_a_frozen_trunk_stays_as_it_is_while_the_head_learns(kind: Callable[..., Classifier]) -> None:
    network = build(kind)
    freeze_trunk(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    task = Classification(classes=list("abcde"))
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network.train()
    for _ in range(2):
        task.loss(network(torch.rand((8, 2, 16, 16))), torch.arange(8) % 5).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    trunk = tuple(f"{name}." for name in network.trunk)
    assert changed
    assert not any(name.startswith(trunk) for name in changed if trunk)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CNN, ResNet, UNetEncoder])
@pytest.mark.parametrize("window", [(16, 16), (5, 16, 16)])
def test_with_mirrors_a_cell_and_its_mirror_image_get_the_same_answer(
    kind: Callable[..., Classifier], window: tuple[int, ...]
) -> None:
    network = build(kind, dimensions=len(window), mirrors=True).eval()
    plain = build(kind, dimensions=len(window)).eval()
    pixels = torch.rand((2, 2, *window))
    with torch.no_grad():
        assert torch.allclose(network(pixels), network(pixels.flip(-1)), atol=1e-5)
        assert torch.allclose(network(pixels), network(pixels.flip(-2)), atol=1e-5)
        assert not torch.allclose(plain(pixels), plain(pixels.flip(-1)), atol=1e-5)


def test_the_trunk_is_everything_but_the_head() -> None:
    network = build(ResNet)
    trunk = set(trunk_parameters(network))
    assert {name for name, _ in network.named_parameters()} - trunk == {"head.linear.weight", "head.linear.bias"}
    assert trunk_parameters(build(LinearClassifier)) == ()
    assert trunk_parameters(nn.Linear(2, 2)) == ()


def test_the_linear_classifier_is_linear_in_a_coarse_picture() -> None:
    """Shuffling pixels inside the cells of its grid changes nothing: it sees neither texture nor edges."""
    network = build(LinearClassifier, side=2).eval()
    window = torch.rand((1, 2, 8, 8))
    shuffled = window.clone()
    shuffled[..., :4, :4] = window[..., :4, :4].flip(-1)
    with torch.no_grad():
        assert torch.allclose(network(window), network(shuffled), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (CNN, {"kernel": 4}),
        (CNN, {"pooling": "median"}),
        (ResNet, {"blocks": (1,)}),
        (UNetEncoder, {"strides": [[2, 2]]}),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kind: Callable[..., Classifier], arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        build(kind, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "side"), [(CNN, 24), (ResNet, 24), (UNetEncoder, 24)])
def test_a_few_steps_tell_rings_from_discs(kind: Callable[..., Classifier], side: int) -> None:
    torch.manual_seed(0)
    network = build(kind, inputs=1, outputs=2)
    task = Classification(classes=["disc", "ring"])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    radius = ((rows - side / 2) ** 2 + (columns - side / 2) ** 2).sqrt()
    shapes = torch.stack((radius < 8, (radius < 9) & (radius > 5))).float()
    for _ in range(25):
        truth = torch.randint(2, (16,))
        optimizer.zero_grad()
        windows = shapes[truth][:, None] + 0.3 * torch.randn((16, 1, side, side))
        task.loss(network(windows), truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval()
    truth = torch.arange(40) % 2
    with torch.no_grad():
        found = network(shapes[truth][:, None] + 0.3 * torch.randn((40, 1, side, side))).argmax(1)
    assert (found == truth).float().mean() > 0.9

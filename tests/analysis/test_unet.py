"""The network sees no further than it says, and folding batch norms does not change its answers."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from cytoray_analysis.errors import BundleError
from cytoray_analysis.networks import UNet, build_network, fuse_batch_norm
from cytoray_analysis.networks.unet import depth_to_space, space_to_depth
from cytoray_analysis.tiles import within


def trained_like(network: nn.Module) -> nn.Module:
    """Give batch norms the statistics of a trained network, so that they do something."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean = torch.randn(module.num_features, generator=generator) * 0.1
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
    return network.eval()


def whole_numbers(network: nn.Module) -> nn.Module:
    """Give a network weights that make every answer an exact whole number, in whatever order it is summed up."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.eps = 0.0
            module.bias.data.fill_(1.0)
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            shape = module.weight.shape
            chance = torch.rand(shape, generator=generator, dtype=torch.float64)
            module.weight.data = (chance < 0.25).double() - (chance > 0.9).double()
            if module.bias is not None:  # the head sees only a few features, which may all be 0
                module.weight.data = (chance < 0.25).double() + 1
            if module.bias is not None:
                module.bias.data.zero_()
    return network.double().eval()


SHAPES: list[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]] = [
    ((4, 4), ((2, 2), (2, 2))),
    ((4, 6, 6), ((2, 2), (2, 2), (2, 2))),
    ((3, 3), ((2, 2, 2), (2, 2, 2))),
    ((3, 3), ((1, 2, 2), (2, 2, 2))),
    ((2, 2, 2), ((1, 2, 2), (1, 2, 2), (2, 2, 2))),
    ((3, 3), ((1, 4, 4), (3, 2, 2))),
]


@pytest.mark.slow
@pytest.mark.parametrize("finish", ["pixels", "cells"])
@pytest.mark.parametrize(("widths", "strides"), SHAPES)
def test_an_output_does_not_depend_on_pixels_beyond_the_halo(
    widths: tuple[int, ...], strides: tuple[tuple[int, ...], ...], finish: Literal["pixels", "cells"]
) -> None:
    dimensions = len(strides[0])
    network = UNet(dimensions=dimensions, inputs=1, outputs=2, widths=widths, strides=strides, finish=finish)
    trained_like(network).double()
    shape = tuple(2 * halo + 2 * stride for halo, stride in zip(network.halo, network.stride, strict=True))
    image = torch.rand((1, 1, *shape), dtype=torch.float64)
    middle = torch.tensor(shape) // 2
    changed = image.clone()
    changed[(0, 0, *middle)] += 10.0
    with torch.no_grad():
        difference = (network(image) - network(changed)).abs().amax(dim=(0, 1))
    reach = (difference.nonzero() - middle).abs().amax(dim=0).tolist()
    for seen, halo, stride in zip(reach, network.halo, network.stride, strict=True):
        assert 0 < seen <= halo
        # And the halo is not wasteful: at most four cells wider than what was seen.
        assert halo - seen <= 4 * stride


@pytest.mark.slow
@pytest.mark.parametrize("finish", ["pixels", "cells"])
@pytest.mark.parametrize(("widths", "strides"), SHAPES)
def test_a_tile_with_its_halo_answers_exactly_as_the_whole_does(
    widths: tuple[int, ...], strides: tuple[tuple[int, ...], ...], finish: Literal["pixels", "cells"]
) -> None:
    network = UNet(dimensions=len(strides[0]), inputs=1, outputs=1, widths=widths, strides=strides, finish=finish)
    whole_numbers(network)
    stride, halo = network.stride, network.halo
    shape = tuple(2 * width + 4 * cell for width, cell in zip(halo, stride, strict=True))
    image = torch.randint(0, 4, (1, 1, *shape)).double()
    core = tuple(slice(cell + width, 2 * cell + width) for width, cell in zip(halo, stride, strict=True))
    outer = tuple(slice(part.start - width, part.stop + width) for part, width in zip(core, halo, strict=True))
    with torch.no_grad():
        expected = network(image)[(..., *core)]
        answer = network(image[(slice(None), slice(None), *outer)])[(..., *within(core, outer))]
    assert 0 < expected.abs().max() < 2**53
    assert torch.equal(answer, expected)


@pytest.mark.parametrize("step", [(2, 2), (2, 2, 2), (1, 2, 2), (4, 3)])
def test_depth_to_space_undoes_space_to_depth(step: tuple[int, ...]) -> None:
    image = torch.rand((2, 3, *(width * cells for width, cells in zip(step, (2, 3, 4), strict=False))))
    folded = space_to_depth(image, step)
    assert folded.shape[2:] == (2, 3, 4)[: len(step)]
    assert torch.equal(depth_to_space(folded, step), image)


def test_any_cell_folds_like_the_one_that_torch_folds() -> None:
    image = torch.rand((2, 3, 1, 6, 8))
    assert torch.equal(space_to_depth(image, (1, 2, 2))[:, :, 0], space_to_depth(image[:, :, 0], (2, 2)))


def test_weights_keep_their_names() -> None:
    """A checkpoint is a contract: weights of earlier trainings must load."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def convolution_norm(name: str) -> set[str]:
        return {f"{name}.0.weight", *(f"{name}.1.{part}" for part in norm)}

    blocks = ("down.0", "down.1", "down.2", "up.0", "up.1")
    modules = ["stem", *(f"{block}.{part}" for block in blocks for part in ("first", "second"))]
    modules += ["down.1.shortcut", "narrow.0", "narrow.1"]
    expected = set().union(*map(convolution_norm, modules)) | {"head.weight", "head.bias"}
    weights = UNet(inputs=3, outputs=3, widths=(4, 8, 8)).state_dict()
    assert set(weights) == expected
    assert weights["stem.0.weight"].shape == (4, 12, 3, 3)
    assert weights["down.1.first.0.weight"].shape == (8, 4, 3, 3)
    assert weights["narrow.1.0.weight"].shape == (4, 8, 1, 1)
    assert weights["head.weight"].shape == (12, 4, 1, 1)
    # Strides change no name, and no shape but those of the stem and the head.
    deep = {"dimensions": 3, "inputs": 3, "outputs": 3, "widths": (4, 8, 8)}
    cubes = build_network("unet", deep).state_dict()
    flat = build_network("unet", deep | {"strides": [[1, 2, 2], [1, 2, 2], [2, 2, 2]]}).state_dict()
    assert set(cubes) == set(flat) == expected
    assert {name for name in cubes if cubes[name].shape != flat[name].shape} == {
        "stem.0.weight",
        "head.weight",
        "head.bias",
    }


def test_folded_batch_norms_give_the_same_answers() -> None:
    network = trained_like(UNet(inputs=3, outputs=3, widths=(8, 16)))
    image = torch.rand((1, 3, 32, 48))
    fused = fuse_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    with torch.no_grad():
        answer: Tensor = fused(image)
        assert torch.allclose(answer, network(image), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("transformer", {}),
        ("unet", {"inputs": 1}),
        ("unet", {"inputs": 1, "outputs": 1, "x": 2}),
        ("unet", {"inputs": 1, "outputs": 1, "strides": [[2, 2]]}),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_in_one_sentence(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"expected one of the networks|cannot be built"):
        build_network(name, arguments)


def test_all_pixels_of_a_cell_have_the_same_weights() -> None:
    """Where nothing changes, outputs are even; with weights for each pixel of a cell they have teeth."""
    torch.manual_seed(0)
    image = torch.full((1, 1, 256, 256), 0.7)
    spread = {}
    for finish in ("pixels", "cells"):
        network = trained_like(build_network("unet", {"inputs": 1, "outputs": 3, "widths": (8, 16), "finish": finish}))
        with torch.no_grad():
            middle = network(image)[..., 96:160, 96:160]
        spread[finish] = float((middle.amax(dim=(2, 3)) - middle.amin(dim=(2, 3))).max())
    assert spread["pixels"] < 1e-5
    assert spread["cells"] > 0.1


def test_an_unknown_finish_is_refused() -> None:
    with pytest.raises(BundleError, match="finish"):
        build_network("unet", {"inputs": 1, "outputs": 3, "finish": "corners"})

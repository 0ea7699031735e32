"""The network sees no further than it says, and folding batch norms does not change its answers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cytoray_analysis.errors import BundleError
from cytoray_analysis.networks import UNet, build_network, fuse_batch_norm
from cytoray_analysis.networks.unet import depth_to_space, space_to_depth


def trained_like(network: nn.Module) -> nn.Module:
    """Give batch norms the statistics of a trained network, so that they do something."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean = torch.randn(module.num_features, generator=generator) * 0.1
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
    return network.eval()


@pytest.mark.parametrize(("dimensions", "widths"), [(2, (4, 4)), (2, (4, 8, 8)), (3, (4, 4))])
def test_an_output_does_not_depend_on_pixels_beyond_the_halo(dimensions: int, widths: tuple[int, ...]) -> None:
    network = UNet(dimensions=dimensions, inputs=1, outputs=2, widths=widths)
    trained_like(network).double()
    halo, stride = network.halo, network.stride
    side = -(-(2 * halo + 2 * stride) // stride) * stride
    image = torch.rand((1, 1, *(side,) * dimensions), dtype=torch.float64)
    middle = side // 2
    changed = image.clone()
    changed[(0, 0, *(middle,) * dimensions)] += 10.0
    with torch.no_grad():
        difference = (network(image) - network(changed)).abs().amax(dim=(0, 1))
    touched = difference.nonzero()
    reach = (touched - middle).abs().max().item()
    assert 0 < reach <= halo
    # And the halo is not wasteful: at most two cells wider than what was seen.
    assert halo - reach <= 4 * stride


@pytest.mark.parametrize("dimensions", [2, 3])
def test_depth_to_space_undoes_space_to_depth(dimensions: int) -> None:
    image = torch.rand((2, 3, *(4, 6, 8)[:dimensions]))
    assert torch.equal(depth_to_space(space_to_depth(image, dimensions), dimensions), image)


def test_folded_batch_norms_give_the_same_answers() -> None:
    network = trained_like(UNet(inputs=3, outputs=3, widths=(8, 16)))
    image = torch.rand((1, 3, 32, 48))
    fused = fuse_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    with torch.no_grad():
        answer: Tensor = fused(image)
        assert torch.allclose(answer, network(image), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments"), [("transformer", {}), ("unet", {"inputs": 1}), ("unet", {"inputs": 1, "outputs": 1, "x": 2})]
)
def test_a_network_that_cannot_be_built_is_refused_in_one_sentence(name: str, arguments: dict[str, int]) -> None:
    with pytest.raises(BundleError, match=r"expected a network out of|cannot be built"):
        build_network(name, arguments)

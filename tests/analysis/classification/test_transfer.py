"""A trunk takes over what fits, says what it left, and works on images of other channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cytoray_analysis.errors import BundleError, MissingFileError
from cytoray_analysis.networks import UNet
from cytoray_analysis.networks.classifier import trunk_parameters
from cytoray_analysis.networks.linear import LinearClassifier
from cytoray_analysis.networks.resnet import ResNet, UNetEncoder
from cytoray_analysis.networks.transfer import load_pretrained


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_segmentation_model_gives_its_whole_encoder(dimensions: int) -> None:
    unet = UNet(dimensions=dimensions, inputs=3, outputs=3, widths=(4, 8, 8))
    network = UNetEncoder(dimensions=dimensions, inputs=3, outputs=5, widths=(4, 8, 8))
    head = network.head.linear.weight.clone()
    transfer = load_pretrained(unet.state_dict(), network)
    assert transfer.left == transfer.adapted == ()
    assert set(trunk_parameters(network)) <= set(transfer.loaded)
    weights = network.state_dict()
    assert all(torch.equal(weights[name], unet.state_dict()[name]) for name in transfer.loaded)
    assert torch.equal(network.head.linear.weight, head)


def test_the_encoder_computes_what_the_segmentation_model_computes() -> None:
    unet = UNet(inputs=1, outputs=3, widths=(4, 8)).eval()
    network = UNetEncoder(inputs=1, outputs=2, widths=(4, 8)).eval()
    load_pretrained(unet.state_dict(), network)
    seen: list[torch.Tensor] = []
    unet.down[-1].register_forward_hook(lambda module, given, answer: seen.append(answer))
    image = torch.rand((2, 1, 16, 24))
    with torch.no_grad():
        unet(image)
        assert torch.allclose(network.features(image), seen[0], atol=1e-6)


@pytest.mark.parametrize("old", [1, 3])
@pytest.mark.parametrize("new", [1, 3, 4])
@pytest.mark.parametrize("kind", [UNetEncoder, ResNet])
def test_a_grey_image_gets_the_same_features_through_any_number_of_channels(
    kind: type[UNetEncoder] | type[ResNet], old: int, new: int
) -> None:
    source = kind(inputs=old, outputs=2, widths=(4, 8)).eval()
    network = kind(inputs=new, outputs=2, widths=(4, 8)).eval()
    transfer = load_pretrained(source.state_dict(), network)
    assert transfer.adapted == (() if old == new else ("stem.0.weight",))
    grey = torch.rand((2, 1, 16, 16))
    with torch.no_grad():
        before = source.features(grey.expand(-1, old, -1, -1))
        assert torch.allclose(network.features(grey.expand(-1, new, -1, -1)), before, atol=1e-5)


def test_what_does_not_fit_is_left_and_named() -> None:
    source = UNet(inputs=3, outputs=3, widths=(4, 8))
    network = UNetEncoder(inputs=3, outputs=5, widths=(4, 8, 16))
    transfer = load_pretrained(source.state_dict(), network)
    assert all(name.startswith("down.2.") for name in transfer.left)
    assert any(name == "down.2.first.0.weight" for name in transfer.left)
    assert "down.1.first.0.weight" in transfer.loaded


def test_the_head_of_another_classifier_is_never_taken() -> None:
    source, network = (ResNet(inputs=1, outputs=3, widths=(4, 8)) for _ in range(2))
    head = network.head.linear.weight.clone()
    transfer = load_pretrained(source.state_dict(), network)
    assert not any(name.startswith("head") for name in transfer.loaded)
    assert torch.equal(network.head.linear.weight, head)


def test_a_bundle_folder_is_a_source(tmp_path: Path) -> None:
    source = ResNet(inputs=1, outputs=3, widths=(4, 8))
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    network = ResNet(inputs=1, outputs=2, widths=(4, 8))
    assert load_pretrained(tmp_path, network).left == ()
    assert torch.equal(network.state_dict()["stem.0.weight"], source.state_dict()["stem.0.weight"])
    (tmp_path / "weights.safetensors").write_bytes(b"no tensors")
    with pytest.raises(BundleError, match="is not a safetensors file"):
        load_pretrained(tmp_path, network)


def test_a_source_that_cannot_help_is_refused(tmp_path: Path) -> None:
    unet = UNet(inputs=3, outputs=3, widths=(4, 8)).state_dict()
    with pytest.raises(BundleError, match="with a trunk"):
        load_pretrained(unet, LinearClassifier(inputs=3, outputs=2))
    assert load_pretrained(unet, UNet(inputs=3, outputs=3, widths=(4, 8))).left == ()  # a U-Net has one: all of it
    with pytest.raises(BundleError, match="found none in the given weights for the trunk of a UNetEncoder"):
        load_pretrained(unet, UNetEncoder(inputs=3, outputs=2, widths=(6, 12)))
    with pytest.raises(MissingFileError, match="expected a bundle folder"):
        load_pretrained(tmp_path, ResNet(inputs=3, outputs=2, widths=(4, 8)))

"""Models of transformers become classifiers: from a folder, without a hub, and from a bundle without the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    ConvNextConfig,
    Dinov2Config,
    PreTrainedConfig,
    PreTrainedModel,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
)

from cytoray_analysis.errors import BundleError, MissingFileError
from cytoray_analysis.networks.classifier import freeze_trunk, trunk_parameters
from cytoray_analysis.networks.pretrained import PretrainedTrunk
from cytoray_analysis.networks.transfer import load_pretrained

TOKENS: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"),
    "convnext": ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, image_size=32),
    "vit": ViTConfig(intermediate_size=16, **TOKENS),
    "dinov2": Dinov2Config(mlp_ratio=1, **TOKENS),
    "swin": SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2], image_size=32, patch_size=4, window_size=4),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders as a hub has them: configuration, safetensors, and how images are prepared."""
    made = {}
    torch.manual_seed(0)
    for name, config in CONFIGS.items():
        made[name] = tmp_path_factory.mktemp(name)
        model: PreTrainedModel = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
        model.save_pretrained(made[name])
    processor = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
    (made["resnet"] / "preprocessor_config.json").write_text(json.dumps(processor))
    return made


def build(folder: Path, **arguments: Any) -> PretrainedTrunk:
    torch.manual_seed(1)
    chosen = {"inputs": 3, "outputs": 4, "window": 24} | PretrainedTrunk.arguments_from(folder) | arguments
    return PretrainedTrunk(**chosen)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize(("inputs", "window"), [(3, (24, 24)), (1, (24, 24)), (5, (24, 24)), (1, (3, 24, 24))])
def test_windows_of_any_channels_and_volumes_are_classified(
    folders: dict[str, Path], name: str, inputs: int, window: tuple[int, ...]
) -> None:
    network = build(folders[name], inputs=inputs, dimensions=len(window)).eval()
    transfer = load_pretrained(folders[name], network)
    assert transfer.left == ()
    assert transfer.adapted == ((network.entrance,) if inputs == 5 else ())
    pixels = torch.rand((2, inputs, *window))
    with torch.no_grad():
        assert network(pixels).shape == (2, 4)
        assert network.features(pixels).ndim == 2 + len(window)
    assert network.bytes_per_pixel(4) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CONFIGS))
def test_the_features_are_those_of_the_original(folders: dict[str, Path], name: str) -> None:
    network = build(folders[name], mean=[0.0], std=[1.0], window=32).eval()
    load_pretrained(folders[name], network)
    original = AutoModel.from_pretrained(folders[name]).eval()
    pixels = torch.rand((2, 3, 32, 32))
    with torch.no_grad():
        state = original(pixel_values=pixels).last_hidden_state
        pooled = network.features(pixels).flatten(2).mean(2)
    if state.ndim == 4:
        assert torch.allclose(pooled, state.flatten(2).mean(2), atol=1e-5)
    else:  # tokens; the class token comes first where there is one
        extra = {"vit": 1, "dinov2": 1, "swin": 0}[name]
        assert torch.allclose(pooled, state[:, extra:].mean(1), atol=1e-5)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_every_trainable_weight_learns(folders: dict[str, Path], name: str) -> None:
    network = build(folders[name])
    loss: torch.Tensor = network(torch.rand((2, 3, 24, 24))).square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    still = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    silent = {name for name, weight in network.named_parameters() if weight.grad is None}
    assert silent == still
    assert len(still) <= 2  # a pooler, a mask token or a norm that only a pooler uses


def test_a_bundle_rebuilds_the_network_without_the_folder(folders: dict[str, Path]) -> None:
    network = build(folders["resnet"]).eval()
    load_pretrained(folders["resnet"], network)
    arguments = PretrainedTrunk.arguments_from(folders["resnet"])
    kept = json.loads(json.dumps({"inputs": 3, "outputs": 4, "window": 24} | arguments))
    again = PretrainedTrunk(**kept)
    again.load_state_dict(network.state_dict())
    pixels = torch.rand((2, 3, 24, 24))
    with torch.no_grad():
        assert torch.equal(again.eval()(pixels), network(pixels))


def test_images_are_prepared_as_the_model_was_trained(folders: dict[str, Path]) -> None:
    arguments = PretrainedTrunk.arguments_from(folders["resnet"])
    assert arguments["mean"] == [0.5, 0.4, 0.3]
    assert arguments["std"] == [0.2, 0.2, 0.1]
    network = build(folders["resnet"]).eval()
    seen: list[torch.Tensor] = []
    network.backbone.register_forward_pre_hook(
        lambda module, given, named: seen.append(named["pixel_values"]), with_kwargs=True
    )
    network(torch.full((1, 3, 24, 24), 0.5))
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx([0.0, 0.5, 2.0], abs=1e-6)
    assert "mean" not in PretrainedTrunk.arguments_from(folders["vit"])


def test_a_grey_image_is_the_same_as_three_equal_channels(folders: dict[str, Path]) -> None:
    grey, colour = build(folders["convnext"], inputs=1).eval(), build(folders["convnext"], inputs=3).eval()
    for network in (grey, colour):
        load_pretrained(folders["convnext"], network)
    pixels = torch.rand((2, 1, 24, 24))
    with torch.no_grad():
        assert torch.allclose(grey.features(pixels), colour.features(pixels.expand(-1, 3, -1, -1)), atol=1e-5)


def test_a_frozen_trunk_leaves_only_the_head_to_train(folders: dict[str, Path]) -> None:
    network = build(folders["resnet"]).train()
    freeze_trunk(network)
    trainable = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert trainable == {name for name, _ in network.named_parameters()} - set(trunk_parameters(network))
    assert not any(module.training for module in network.get_submodule("backbone").modules())


def test_weights_other_than_safetensors_are_not_touched(folders: dict[str, Path], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "config.json").write_text((folders["resnet"] / "config.json").read_text())
    torch.save({"trap": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(MissingFileError, match="safetensors"):
        load_pretrained(tmp_path, build(folders["resnet"]))
    assert not (tmp_path / "sprung").exists()


def test_a_model_that_brings_its_own_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "trap", "auto_map": {"AutoConfig": "trap.Trap", "AutoModel": "trap.Trap"}})
    )
    (tmp_path / "trap.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(BundleError, match="expected a supported model"):
        PretrainedTrunk.arguments_from(tmp_path)


def test_a_source_that_is_nowhere_is_said_to_be_missing(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="expected a model"):
        PretrainedTrunk.arguments_from(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match="expected a model"):
        load_pretrained(tmp_path / "nowhere", build(folders["resnet"]))


def test_windows_that_the_model_cannot_take_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="size"):
        build(folders["vit"], side=None, window=40)
    assert isinstance(build(folders["vit"], window=40), nn.Module)


@pytest.mark.parametrize(
    "asked",
    [
        {"auto_map": {"AutoModel": "someone/else--modeling.Model", "AutoConfig": "someone/else--modeling.Config"}},
        {"_attn_implementation": "someone/kernels"},
        {"attn_implementation": "someone/kernels:forward"},
        {"quantization_config": {"quant_method": "someone"}},
    ],
)
def test_a_configuration_never_asks_for_code(
    folders: dict[str, Path], asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> str:
        pytest.fail("it was asked whether code may run")

    monkeypatch.setattr("builtins.input", ask)
    arguments = PretrainedTrunk.arguments_from(folders["vit"])
    built = PretrainedTrunk(
        inputs=3, outputs=4, window=32, **arguments | {"config": arguments["config"] | asked, "side": None}
    )
    assert built.features(torch.zeros(1, 3, 32, 32)).shape[:2] == (1, 16)

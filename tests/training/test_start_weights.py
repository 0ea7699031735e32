"""Starting from another model: what is taken over, at which rate it learns, what stays still."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import BundleError, ForbiddenError, MissingFileError, ModelNotFoundError, RecipeError
from cytoray_analysis.networks import build_network
from cytoray_services.datasets.remote import data_uris
from cytoray_services.registry import Registry
from cytoray_services.settings import Settings, load_settings
from cytoray_training.engines.build import build_engine
from cytoray_training.plan.transfer import StartWeights, find_start, take_over
from cytoray_training.recipe import Start, Training
from cytoray_training.recipe.schema import Model

UNET = {"dimensions": 2, "inputs": 1, "outputs": 3, "widths": [8, 16]}
ENCODER = {"dimensions": 2, "inputs": 1, "outputs": 4, "widths": [8, 16]}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"CYTORAY_HOME": str(tmp_path / "home")})


@pytest.fixture
def segmenter(tmp_path: Path) -> Bundle:
    torch.manual_seed(7)
    spec = BundleSpec(
        name="nuclei",
        task=TaskChoice(),
        input=ModelInput(),
        network=NetworkChoice(name="unet", arguments=UNET),
        decode={"votes": 20.0},
    )
    weights = build_network("unet", UNET).state_dict()
    return write_bundle(tmp_path / "nuclei", spec, weights, test_input=np.zeros((1, 16, 16), np.float32), card="#\n")


def find(
    fields: dict[str, Any],
    network: str,
    settings: Settings,
    *,
    task: str = "classification",
    within: tuple[Path | str, ...] | None = None,
) -> StartWeights:
    return find_start(Start.model_validate(fields), network, task, settings, within=within)


@pytest.mark.slow
def test_a_registered_model_gives_its_trunk(segmenter: Bundle, settings: Settings) -> None:
    Registry.open(settings).register(segmenter.folder, "nuclei", run_id=None, metrics={})
    found = find({"from": "registry:nuclei"}, "unet_encoder", settings)
    assert segmenter.digest in found.identity
    network = build_network("unet_encoder", ENCODER)
    trunk = take_over(found, network)
    weights = segmenter.network().state_dict()
    taken = {name: value for name, value in network.state_dict().items() if trunk.holds(name)}
    assert len(taken) > 4
    assert all(torch.equal(value, weights[name]) for name, value in taken.items())


def test_a_model_that_is_not_registered_is_refused(settings: Settings) -> None:
    with pytest.raises(ModelNotFoundError):
        find({"from": "registry:nuclei"}, "unet_encoder", settings)


def test_a_folder_outside_of_what_may_be_read_gives_no_weights(
    segmenter: Bundle, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    segmenter.folder.rename(other)
    (own / "linked").symlink_to(other)
    (own / "half").mkdir()
    (own / "half/bundle.yaml").symlink_to(other / "bundle.yaml")
    monkeypatch.chdir(tmp_path)  # a folder may have the name of a model of a hub
    for source in (str(other), f"{own}/../other", f"{own}/linked", f"{own}/half", f"/proc/self/root{other}", "other"):
        with pytest.raises(ForbiddenError, match="outside"):
            find({"from": source}, "unet_encoder", settings, within=(own,))
    found = find({"from": str(other)}, "unet_encoder", settings, within=(own, other))
    assert segmenter.digest in found.identity


def test_a_start_on_a_claim_is_looked_for_where_the_claim_is_mounted(
    segmenter: Bundle, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_uris, "CLAIMS", tmp_path)
    (tmp_path / "models").mkdir()
    segmenter.folder.rename(tmp_path / "models/nuclei")
    found = find({"from": "pvc://models/nuclei"}, "unet_encoder", settings, within=("pvc://models/nuclei",))
    assert found.source == str(tmp_path / "models/nuclei")
    with pytest.raises(MissingFileError, match="not mounted"):
        find({"from": "pvc://other/nuclei"}, "unet_encoder", settings)


def test_a_network_without_a_trunk_is_refused(segmenter: Bundle, settings: Settings) -> None:
    found = find({"from": str(segmenter.folder)}, "linear", settings)
    with pytest.raises(BundleError):
        take_over(found, build_network("linear", {"inputs": 1, "outputs": 3}))


@pytest.mark.parametrize(("trunk", "moves"), [("frozen", False), ("finetune", True)])
def test_a_frozen_trunk_stays_and_the_head_learns(
    segmenter: Bundle, settings: Settings, trunk: str, moves: bool
) -> None:
    found = find({"from": str(segmenter.folder), "trunk": trunk, "rate": 0.5}, "unet_encoder", settings)
    network = build_network("unet_encoder", ENCODER)
    taken = take_over(found, network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    training = Training(engine="torch", precision="fp32", ema_decay=0.0)

    def squared(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return ((outputs - target) ** 2).mean()

    engine = build_engine(network, squared, training, crops=4, device=torch.device("cpu"), trunk=taken)
    batch = [(torch.rand(4, 1, 16, 16), torch.rand(4, 4))]
    for _ in range(2):
        engine.step(batch, 1e-2)
    after = engine.weights()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert any(not taken.holds(name) for name in changed)
    assert any(taken.holds(name) for name in changed) == moves
    again = build_network("unet_encoder", ENCODER)
    again_taken = take_over(found, again)
    resumed = build_engine(
        again, squared, training, crops=4, device=torch.device("cpu"), state=engine.state(), trunk=again_taken
    )
    assert resumed.steps == 2
    resumed.step(batch, 1e-2)


def test_what_was_taken_over_learns_at_its_own_rate(segmenter: Bundle, settings: Settings) -> None:
    found = find({"from": str(segmenter.folder), "rate": 0.25}, "unet_encoder", settings)
    network = build_network("unet_encoder", ENCODER)
    engine = build_engine(
        network,
        lambda outputs, target: (outputs - target).abs().mean(),
        Training(engine="torch", precision="fp32"),
        crops=2,
        device=torch.device("cpu"),
        trunk=take_over(found, network),
    )
    engine.step([(torch.rand(2, 1, 16, 16), torch.rand(2, 4))], 4e-3)
    rates = {round(group["lr"], 6) for group in engine._optimizer.param_groups}  # type: ignore[attr-defined]
    assert rates == {4e-3, 1e-3}


def test_a_transformers_folder_decides_about_the_network_that_takes_its_weights(
    tmp_path: Path, settings: Settings
) -> None:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(tmp_path / "hub", safe_serialization=True)
    found = find({"from": str(tmp_path / "hub")}, "pretrained", settings)
    arguments = json.loads(json.dumps(dict(found.arguments))) | {"inputs": 1, "outputs": 3}
    network = build_network("pretrained", arguments)
    assert take_over(found, network).prefixes
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 3)


def test_a_u_net_goes_on_from_another_with_head_and_decoding(segmenter: Bundle, settings: Settings) -> None:
    found = find({"from": str(segmenter.folder)}, "unet", settings, task="segmentation")
    assert found.arguments == {"widths": [8, 16], "finish": "cells"}
    assert found.decode == {"votes": 20.0}
    network = build_network("unet", UNET)
    trunk = take_over(found, network)
    weights = segmenter.network().state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert all(trunk.holds(name) for name, _ in network.named_parameters())


def test_a_u_net_for_another_question_gets_a_new_head_that_learns_faster(segmenter: Bundle, settings: Settings) -> None:
    found = find({"from": str(segmenter.folder)}, "unet", settings, task="semantic")
    assert found.decode == {}
    network = build_network("unet", UNET | {"outputs": 5, "inputs": 2})
    trunk = take_over(found, network)
    assert not trunk.holds("head.weight")
    assert trunk.holds("stem.0.weight")
    grey = torch.rand((1, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    before = segmenter.network().stem[0](torch.nn.functional.pixel_unshuffle(grey, 2))  # type: ignore[index, operator]
    after = network.stem[0](torch.nn.functional.pixel_unshuffle(grey.repeat(1, 2, 1, 1), 2))  # type: ignore[index, operator]
    assert torch.allclose(before, after, atol=1e-5)


def test_a_u_net_cannot_be_frozen(segmenter: Bundle, settings: Settings) -> None:
    with pytest.raises(RecipeError, match="expected trunk: finetune for a unet"):
        find({"from": str(segmenter.folder), "trunk": "frozen"}, "unet", settings, task="segmentation")


@pytest.mark.parametrize("name", ["nuclei", "registry:nuclei"])
def test_a_name_alone_means_a_model_of_the_registry(name: str) -> None:
    model = Model.model_validate({"name": "mine", "start": name})
    assert model.start is not None
    assert model.start.source == "registry:nuclei"

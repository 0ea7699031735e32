"""A bundle is whole or not there, knows its own answer, and loading it runs nothing that it carries."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cytoray_analysis.bundle import (
    FILES,
    Bundle,
    BundleSpec,
    ModelInMemory,
    ModelInput,
    NetworkChoice,
    TaskChoice,
    write_bundle,
)
from cytoray_analysis.errors import BundleError, ModelNotFoundError
from cytoray_analysis.images import image_from_array
from cytoray_analysis.networks import build_network
from cytoray_analysis.predictor import Predictor

ARGUMENTS = {"inputs": 1, "outputs": 3, "widths": [4, 8]}


def make(folder: Path, *, seed: int = 0) -> Bundle:
    torch.manual_seed(seed)
    spec = BundleSpec(
        name="tiny",
        task=TaskChoice(name="segmentation"),
        input=ModelInput(),
        network=NetworkChoice(arguments=ARGUMENTS),
    )
    image = np.random.default_rng(0).random((1, 16, 16), dtype=np.float32)
    return write_bundle(folder, spec, build_network("unet", ARGUMENTS).state_dict(), test_input=image, card="# tiny\n")


class Planted:
    """Code that would run if anything unpickled it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_bundle_read_back_is_the_one_written(tmp_path: Path) -> None:
    written = make(tmp_path / "bundle")
    read = Bundle.load(tmp_path / "bundle")
    assert read == written
    assert {entry.name for entry in read.folder.iterdir()} == FILES
    assert read.self_test() == 0.0


def test_the_digest_distinguishes_models(tmp_path: Path) -> None:
    assert make(tmp_path / "a").digest == make(tmp_path / "b").digest
    assert make(tmp_path / "a").digest != make(tmp_path / "c", seed=1).digest


@pytest.mark.parametrize("name", ["weights.pt", "model.pkl", "run.py", "weights.safetensors.bak"])
def test_a_planted_file_is_refused_and_never_run(tmp_path: Path, name: str) -> None:
    bundle = make(tmp_path / "bundle")
    (bundle.folder / name).write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    with pytest.raises(BundleError, match=name):
        Bundle.load(bundle.folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "test_input.npy", "test_output.npy"])
def test_a_pickle_under_the_name_of_a_bundle_file_is_refused_and_never_run(tmp_path: Path, name: str) -> None:
    bundle = make(tmp_path / "bundle")
    (bundle.folder / name).write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    with pytest.raises(BundleError):
        Bundle.load(bundle.folder).self_test()
    assert not (tmp_path / "ran").exists()


def test_yaml_that_would_build_objects_is_refused(tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    (bundle.folder / "bundle.yaml").write_text(f"!!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']")
    with pytest.raises(BundleError, match="YAML"):
        Bundle.load(bundle.folder)
    assert not (tmp_path / "ran").exists()


def test_a_link_out_of_the_bundle_is_refused(tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    outside = shutil.move(bundle.folder / "README.md", tmp_path / "outside")
    (bundle.folder / "README.md").symlink_to(outside)
    with pytest.raises(BundleError, match=r"expected a regular file, got .*README\.md"):
        Bundle.load(bundle.folder)


def test_a_truncated_weight_file_is_reported(tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    weights = bundle.folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BundleError, match="safetensors"):
        Bundle.load(bundle.folder).network()


def test_weights_of_another_network_fail_the_self_test(tmp_path: Path) -> None:
    one, other = make(tmp_path / "one"), make(tmp_path / "other", seed=1)
    shutil.copy(other.folder / "weights.safetensors", one.folder / "weights.safetensors")
    with pytest.raises(BundleError, match="deviates"):
        Bundle.load(one.folder).self_test()


def test_a_missing_file_and_a_missing_folder_are_reported(tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    (bundle.folder / "README.md").unlink()
    with pytest.raises(BundleError, match=r"lacks README\.md"):
        Bundle.load(bundle.folder)
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        Bundle.load(tmp_path / "nowhere")


def test_weights_in_memory_answer_as_the_bundle_of_them_does_and_are_not_changed(tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    weights = bundle.network().state_dict()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    image = image_from_array(np.random.default_rng(1).random((40, 56), dtype=np.float32), "YX")
    in_memory = Predictor(ModelInMemory(bundle.spec, weights), device="cpu", precision="fp32")
    from_disk = Predictor(bundle, device="cpu", precision="fp32")
    assert (in_memory.outputs(image) == from_disk.outputs(image)).all()
    assert all((weights[name] == tensor).all() for name, tensor in before.items())
    with pytest.raises(BundleError, match="do not fit"):
        ModelInMemory(bundle.spec, {}).network()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    spec = BundleSpec(
        name="tiny",
        task=TaskChoice(name="segmentation"),
        input=ModelInput(),
        network=NetworkChoice(arguments=ARGUMENTS),
    )
    with pytest.raises(BundleError, match="do not fit"):
        write_bundle(tmp_path / "bundle", spec, {}, test_input=np.zeros((1, 16, 16), np.float32), card="")
    assert list(tmp_path.iterdir()) == []

"""``cytoray models export`` and ``import``: out of a registry and into one, and what was allowed stays on record."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cytoray_analysis.bundle import Bundle
from cytoray_services.commands.root import main
from cytoray_services.registry import Registry
from cytoray_services.settings import load_settings

CREDITS = ["--author", "Ada Lovelace", "--licence", "MIT"]


@pytest.fixture
def cytoray(registry_home: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    def run(*words: str) -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--json"])
        return int(ended.value.code or 0), json.loads(capfd.readouterr().out)

    return run


Command = Callable[..., tuple[int, dict[str, Any]]]


@pytest.mark.slow
def test_a_model_leaves_as_each_format_and_comes_back_as_the_same_bundle(
    cytoray: Command, bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    bundle = bundle_of("unet")
    status, first = cytoray("models", "import", str(bundle.folder), "--name", "nuclei")
    assert (status, first["model"], first["version"], first["digest"]) == (0, "nuclei", "1", bundle.digest)
    assert first["aliases"] == ["candidate"]

    status, onnx = cytoray("models", "export", "nuclei/1", "--to", str(tmp_path / "out"), "--format", "onnx")
    assert (status, onnx["model"], onnx["path"]) == (0, "nuclei/1", str(tmp_path / "out" / "unet.onnx"))
    assert onnx["deviation"] < 1e-4
    for words in (["--format", "bundle"], CREDITS):
        archive = str(tmp_path / f"{words[0]}{words[1]}.zip".replace(" ", ""))
        status, exported = cytoray("models", "export", "nuclei@candidate", "--to", archive, *words)
        assert (status, exported["path"], exported["digest"]) == (0, archive, bundle.digest)
        status, back = cytoray("models", "import", archive, "--name", "back")
        assert (status, back["digest"]) == (0, bundle.digest)
    assert [version.version for version in Registry.open(load_settings()).versions("back")] == ["2", "1"]


@pytest.mark.slow
def test_foreign_code_needs_a_yes_that_the_version_keeps(
    cytoray: Command, bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    import yaml

    bundle = bundle_of("labelfree")
    assert cytoray("models", "export", str(bundle.folder), "--to", str(tmp_path / "package"), *CREDITS)[0] == 0
    folder = tmp_path / "package"
    document = yaml.safe_load((folder / "bioimageio.yaml").read_text())
    del document["config"], document["attachments"]  # what makes it ours
    document["outputs"][0]["postprocessing"] = []
    pixels = torch.zeros(1, 1, 24, 24)
    torch.jit.trace(bundle.network(), pixels).save(str(folder / "weights.pt"))  # type: ignore[no-untyped-call]
    document["weights"] = {"torchscript": {"source": "weights.pt", "pytorch_version": torch.__version__.split("+")[0]}}
    answer = expected_answer(bundle, folder, document)
    del answer["sha256"]
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(document))

    status, refused = cytoray("models", "import", str(folder), "--name", "foreign")
    assert (status, refused["error"]) == (2, "RequestError")
    assert "--allow-code" in refused["hint"]
    status, allowed = cytoray("models", "import", str(folder), "--name", "foreign", "--allow-code")
    assert (status, allowed["origin"]) == (0, "foreign package")
    kept = Registry.open(load_settings()).resolve("foreign/1").tags
    assert "@" in kept["import.code_allowed_by"]
    assert kept["import.code"].startswith("torchscript weights.pt sha256 ")
    assert kept["import.code_allowed_at"] == allowed["tags"]["import.code_allowed_at"]


def expected_answer(bundle: Bundle, folder: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Store as test output what the network itself gives, without the step that was taken away."""
    import numpy as np

    kwargs = next(step for step in document["inputs"][0]["preprocessing"] if step["id"] == "scale_linear")["kwargs"]
    pixels = np.load(folder / "test_input.npy") * kwargs["gain"][0] + kwargs["offset"][0]
    with torch.inference_mode():
        np.save(folder / "test_output.npy", bundle.network()(torch.from_numpy(pixels.astype(np.float32))).numpy())
    tensor: dict[str, Any] = document["outputs"][0]["test_tensor"]
    return tensor


def test_a_planted_archive_ends_with_status_two_and_registers_nothing(cytoray: Command, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../bundle.yaml", "format: 1")
    status, refused = cytoray("models", "import", str(tmp_path / "bad.zip"))
    assert (status, refused["error"]) == (2, "BundleError")
    assert Registry.open(load_settings()).list() == ()


@pytest.mark.slow
def test_a_package_without_an_author_is_refused(
    cytoray: Command, bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    status, refused = cytoray("models", "export", str(bundle_of("unet").folder), "--to", str(tmp_path / "out"))
    assert (status, refused["field"]) == (2, "--author")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--format", "bundle"), tuple(CREDITS)], ids=["bundle", "package"])
@pytest.mark.parametrize("unpacked", [False, True], ids=["zip", "folder"])
def test_scores_and_facts_go_along_into_another_registry(
    cytoray: Command,
    bundle_of: Callable[[str], Bundle],
    tmp_path: Path,
    registry_without_models: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    unpacked: bool,
) -> None:
    metrics = {"ap": 0.75, "f1": 1 / 3}
    facts = {"recipe": "abc", "data": {"train": "d1"}, "parent": f"cells/1 {'0' * 64}", "import.code": "theirs"}
    registry = Registry.open(load_settings())
    with registry.start_run("nuclei", "first") as run:
        run.log_text("model:\n  name: nuclei\n", "recipe.yaml")
        registered = registry.register(
            bundle_of("unet").folder, "nuclei", run_id=run.run_id, tags=facts, metrics=metrics
        )
    place = tmp_path / "out.zip"
    assert cytoray("models", "export", "nuclei/1", "--to", str(place), *words)[0] == 0
    if unpacked:
        with zipfile.ZipFile(place) as archive:
            archive.extractall(tmp_path / "out")
        place = tmp_path / "out"

    other = tmp_path / "another home"
    monkeypatch.setenv("CYTORAY_HOME", str(shutil.copytree(registry_without_models, other)))
    status, told = cytoray("models", "import", str(place), "--name", "theirs")
    assert (status, told["digest"], told["metrics"]) == (0, registered.digest, metrics)
    registry = Registry.open(load_settings())
    version = registry.resolve("theirs/1")
    assert version.metrics == metrics
    assert version.parent_digest == "0" * 64
    assert {key: version.tags.get(key) for key in ("recipe", "data.train", "import.reference", "import.code")} == {
        "recipe": "abc",
        "data.train": "d1",
        "import.reference": "nuclei/1",
        "import.code": None,
    }
    assert version.run_id is not None
    recipe = registry.run(version.run_id).read_text("recipe.yaml")
    assert recipe == ("model:\n  name: nuclei\n" if "bundle" in words else None)  # it names folders of one machine
    status, onnx = cytoray("models", "export", "theirs", "--to", str(tmp_path / "graph.onnx"), "--format", "onnx")
    assert status == 0
    import onnx as library

    written = {one.key: one.value for one in library.load(onnx["path"]).metadata_props}
    assert (written["metric.ap"], written["version"]) == ("0.75", "theirs/1")

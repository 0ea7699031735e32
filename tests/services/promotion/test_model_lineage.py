"""From a version back to everything it came from, from data and answers to versions."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import ModelNotFoundError, RequestError
from cytoray_analysis.networks import build_network
from cytoray_services.commands.root import main
from cytoray_services.datasets import DataSource, hash_dataset, make_segmentation, open_dataset
from cytoray_services.promotion.lineage import find_answering, lineage_of, versions_that_saw
from cytoray_services.promotion.seen_data import image_digests, record_seen_data
from cytoray_services.registry import ModelVersion, Registry
from registry_stores import local

NETWORK = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 3, "widths": [4, 8]})


@dataclass(frozen=True)
class Family:
    """A model, one that started from it, and the data of the first."""

    registry: Registry
    first: ModelVersion
    second: ModelVersion
    data: Path


@pytest.fixture
def family(registry_home: Path, tmp_path: Path) -> Family:
    registry = Registry.open(local(registry_home))
    dataset = make_segmentation(tmp_path / "cells", images=6, size=64, seed=1)
    made: list[ModelVersion] = []
    for number in range(2):
        torch.manual_seed(number)
        provenance = {"recipe": f"{number}" * 64, "code": "c0de" * 10, "data": hash_dataset(dataset)}
        if made:
            provenance["parent"] = f"{made[0].reference} {made[0].digest}"
        spec = BundleSpec(
            name="cells", task=TaskChoice(), input=ModelInput(), network=NETWORK, provenance=dict(provenance)
        )
        weights = build_network(NETWORK.name, NETWORK.arguments).state_dict()
        inputs = np.zeros((1, 16, 16), np.float32)
        bundle: Bundle = write_bundle(tmp_path / f"b{number}", spec, weights, test_input=inputs, card="#")
        with registry.start_run("cells", f"run {number}") as run:
            if number == 0:
                record_seen_data(run, DataSource((dataset.root,), "labels"), dataset, hash_dataset(dataset))
            made.append(registry.register(bundle.folder, "cells", run_id=run.run_id))
        registry.promote("cells", made[-1].version)
    return Family(registry, registry.resolve("cells/1"), registry.resolve("cells/2"), dataset.root)


@pytest.mark.slow
def test_a_version_leads_to_run_recipe_code_data_and_to_what_it_started_from(family: Family) -> None:
    lineage = lineage_of(family.registry, family.second)
    kinds = {node.kind: node.detail for node in lineage.nodes if node.kind not in ("version", "run")}
    assert kinds["code"] == "c0de" * 10
    pairs = {(edge.before, edge.after): edge.label for edge in lineage.edges}
    assert pairs["cells/1", f"run {family.second.run_id}"] == "weights"
    assert (f"run {family.second.run_id}", "cells/2") in pairs
    assert (f"recipe {'0' * 64}", f"run {family.first.run_id}") in pairs  # the whole way back
    digest = hash_dataset(open_dataset(family.data))
    splits = {name: len(open_dataset(family.data).split(name)) for name in ("train", "val")}
    shown = pairs[f"data {digest}", f"run {family.first.run_id}"]
    assert shown == f"{splits['train']} train, {splits['val']} val"
    assert ("cells/2", "@champion") in pairs


@pytest.mark.slow
def test_a_version_leads_to_what_started_from_it(family: Family) -> None:
    labels = {(edge.before, edge.after): edge.label for edge in lineage_of(family.registry, family.first).edges}
    assert labels["cells/1", "cells/2"] == "started from"


@pytest.mark.slow
def test_data_lead_to_every_version_that_saw_them_or_a_part(family: Family, tmp_path: Path) -> None:
    dataset = open_dataset(family.data)
    assert {one.version.reference for one in versions_that_saw(family.registry, dataset)} == {"cells/1", "cells/2"}
    digest = hash_dataset(dataset)
    assert len(versions_that_saw(family.registry, digest[:12])) == 2
    for kind in ("images", "masks"):
        (tmp_path / "part" / kind).mkdir(parents=True)
    for item in dataset.split("train").items[:2]:
        assert item.truth is not None
        shutil.copy(item.image, tmp_path / "part" / "images")
        shutil.copy(item.truth, tmp_path / "part" / "masks")
    (part,) = versions_that_saw(family.registry, open_dataset(tmp_path / "part"))
    assert (part.version.reference, part.whole, part.images) == ("cells/1", False, {"train": 2})
    other = make_segmentation(tmp_path / "other", images=2, size=64, seed=9)
    assert versions_that_saw(family.registry, other) == ()
    with pytest.raises(RequestError, match="expected a data set folder or its hash"):
        versions_that_saw(family.registry, "no-such-folder")


@pytest.mark.slow
def test_an_answer_leads_to_its_version(family: Family) -> None:
    assert find_answering(family.registry, family.second.digest).reference == "cells/2"
    assert find_answering(family.registry, family.first.digest[:12]).reference == "cells/1"
    with pytest.raises(ModelNotFoundError, match="no version has the digest"):
        find_answering(family.registry, "0" * 12)
    with pytest.raises(RequestError, match="expected the digest"):
        find_answering(family.registry, "cells")


@pytest.mark.slow
def test_the_command_prints_and_draws_the_lineage(
    family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "lineage.png"
    words = ["models", "show", "--digest", family.second.digest, "--lineage", "--picture", str(picture), "--json"]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["version"] == "cells/2"
    assert {"before": "cells/2", "after": "@champion", "label": "is"} in answer["edges"]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_an_image_is_the_same_in_another_type(family: Family, tmp_path: Path) -> None:
    from cytoray_analysis.images import image_from_array, read_image, write_image

    dataset = open_dataset(family.data)
    for kind in ("images", "masks"):
        (tmp_path / "wide" / kind).mkdir(parents=True)
    for item in dataset.items:
        assert item.truth is not None
        pixels = read_image(item.image).select("YX").read().astype(np.uint16)
        write_image(tmp_path / "wide" / "images" / f"{item.image.stem}.tif", image_from_array(pixels, "YX"))
        shutil.copy(item.truth, tmp_path / "wide" / "masks")
    assert set(image_digests(open_dataset(tmp_path / "wide"))) == set(image_digests(dataset))

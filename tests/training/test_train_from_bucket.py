"""The same recipe with its data in a bucket: the same data, the same model; and on shards with two workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from buckets import bucket_store, copy_to_bucket
from cytoray_analysis.bundle import Bundle
from cytoray_services.commands.root import main
from cytoray_services.datasets import Dataset, hash_dataset
from cytoray_services.registry import Registry
from cytoray_services.settings import load_settings
from cytoray_training.plan.planning import make_plan
from cytoray_training.recipe import parse_recipe
from cytoray_training.run.loop import train
from cytoray_training.run.reporter import FolderReporter


@pytest.fixture(scope="module")
def uri(cells: Dataset, away_from_ray_cluster: None) -> Iterator[str]:
    with bucket_store():  # of whose environment the workers of a Ray instance know that starts now
        yield copy_to_bucket(cells.root, "cells")


@pytest.fixture
def cache(tmp_path: Path, registry_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CYTORAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(data: dict[str, Any], workers: int = 1) -> dict[str, Any]:
    return {
        "model": {"name": "tiny", "network": {"arguments": {"widths": [8, 16]}}},
        "data": {"channels": "grey"} | data,
        "training": {"epochs": 2, "crops_per_epoch": 16, "crop_size": 64, "batch_size": 4, "engine": "torch"},
        "scale": {"workers": workers},
    }


def kept_images(cache: Path) -> set[str]:
    return {path.name for path in (cache / "files").rglob("*.tif") if path.parent.name == "images"}


@pytest.mark.slow
def test_data_in_a_bucket_train_what_data_in_a_folder_train(
    tmp_path: Path, cells: Dataset, uri: str, cache: Path
) -> None:
    stands = []
    for name, root in (("folder", str(cells.root)), ("bucket", uri)):
        plan = make_plan(parse_recipe(recipe({"root": root})), load_settings())
        reporter = FolderReporter(tmp_path / name)
        stands.append((plan.identity, train(plan, reporter, device=torch.device("cpu")).best))
    assert stands[0] == stands[1]
    # Of the images themselves only those for validation stay on the node.
    assert kept_images(cache) == {item.image.name for item in cells.split("val").items}


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_two_workers_train_on_shards_of_a_bucket_and_the_model_is_registered(
    tmp_path: Path, cells: Dataset, uri: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = {"use": "always", "megabytes": 0.12, "held": 1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe({"root": uri, "shards": shards}, workers=2)))
    with pytest.raises(SystemExit) as ended:
        main(["train", str(tmp_path / "recipe.yaml"), "--json"])
    answer = capsys.readouterr()
    assert ended.value.code == 0, answer.err
    found = json.loads(answer.out)
    version = Registry.open(load_settings()).resolve(f"tiny/{found['version']}")
    assert version.metrics.keys() == found["metrics"].keys()
    assert Bundle.load(found["bundle"]).spec.provenance["data"] == hash_dataset(cells)
    assert not [path for path in cache.iterdir() if (path / "pixels").exists()]

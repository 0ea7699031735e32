"""A version is judged by what of the images it was trained on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import RequestError
from cytoray_analysis.networks import build_network
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_services.commands.promote import _freeze
from cytoray_services.datasets import DataSource, hash_dataset
from cytoray_services.promotion.attempts import attempt_of
from cytoray_services.promotion.frozen_set import freeze, recorded_set, settle
from cytoray_services.promotion.gate import Wish, promote
from cytoray_services.promotion.seen_data import record_seen_data
from cytoray_services.registry import ModelVersion, Registry
from registry_stores import local

CHOSEN = Selection(channel=("1",))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for kind, axes, shape in (("images", "CYX", (2, 16, 16)), ("masks", "YX", (16, 16))):
        for split in ("train", "val"):
            (folder / split / kind).mkdir(parents=True)
            pixels = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape) + len(split)
            tifffile.imwrite(folder / split / kind / "a.tif", pixels, metadata={"axes": axes}, photometric="minisblack")
    return folder


def trained(registry: Registry, folder: Path, data: Path, selection: Selection) -> ModelVersion:
    network = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 3, "widths": [4, 8]})
    spec = BundleSpec(name="cells", task=TaskChoice(), input=ModelInput(), network=network)
    weights = build_network(network.name, network.arguments).state_dict()
    bundle = write_bundle(folder, spec, weights, test_input=np.zeros((1, 16, 16), np.float32), card="#")
    source = DataSource((data,), "labels", selection=selection)
    with registry.start_run("cells", "run") as run:
        record_seen_data(run, source, source.open(), hash_dataset(source.open()))
        return registry.register(bundle.folder, "cells", run_id=run.run_id)


def test_a_set_that_is_named_is_chosen_as_in_training(registry_home: Path, tmp_path: Path, data: Path) -> None:
    registry = Registry.open(local(registry_home))
    version = trained(registry, tmp_path / "bundle", data, CHOSEN)
    given = _freeze(registry, version, str(data), {}, split="val")
    assert given.source.selection == CHOSEN
    assert settle(registry, version, given).source.selection == CHOSEN
    assert settle(registry, version, None).open().selection == CHOSEN


def test_a_set_that_is_chosen_otherwise_does_not_judge(registry_home: Path, tmp_path: Path, data: Path) -> None:
    registry = Registry.open(local(registry_home))
    plain = trained(registry, tmp_path / "plain", data, EVERYTHING)
    everything = freeze(DataSource((data,), "labels"), "val")
    settle(registry, plain, everything)
    version = trained(registry, tmp_path / "chosen", data, CHOSEN)
    for given in (None, everything):
        with pytest.raises(RequestError, match="channel"):
            settle(registry, version, given)
    chosen = freeze(DataSource((data,), "labels", selection=CHOSEN), "val")
    with pytest.raises(RequestError, match="judged by everything"):
        settle(registry, version, chosen)
    assert settle(registry, version, chosen, replacing=True, reason="another channel").source.selection == CHOSEN


def test_what_chose_nothing_is_frozen_where_no_set_is_named(registry_home: Path, tmp_path: Path, data: Path) -> None:
    registry = Registry.open(local(registry_home))
    version = trained(registry, tmp_path / "bundle", data, CHOSEN)
    with pytest.raises(RequestError, match="have no split test, and val chose") as caught:
        settle(registry, version, None)
    assert "--on DATASET" in (caught.value.hint or "")
    shutil.copytree(data / "val", data / "test")
    version = trained(registry, tmp_path / "other", data, CHOSEN)
    assert settle(registry, version, None).split == "test"


def test_policies_are_recorded_with_the_set_and_none_is_given_up(
    registry_home: Path, tmp_path: Path, data: Path
) -> None:
    registry = Registry.open(local(registry_home))
    version = trained(registry, tmp_path / "bundle", data, EVERYTHING)
    source = DataSource((data,), "labels")
    settle(registry, version, freeze(source, "val", metric="pq", guards={"ap90": 0.01, "dice": 0.02}))
    again = settle(registry, version, freeze(source, "val", guards={"ap90": 0.05, "iou": 0.1}))
    assert (again.metric, dict(again.guards)) == ("pq", {"ap90": 0.01, "dice": 0.02, "iou": 0.1})
    with pytest.raises(RequestError, match="is judged by the score 'pq', got 'ap50'"):
        settle(registry, version, freeze(source, "val", metric="ap50"))


def test_each_pair_of_versions_is_one_attempt_on_its_set(registry_home: Path, tmp_path: Path, data: Path) -> None:
    registry = Registry.open(local(registry_home))
    trained(registry, tmp_path / "bundle", data, EVERYTHING)
    attempts = [attempt_of(registry, "cells", "set", candidate, "old") for candidate in ("a", "b", "a", "d")]
    assert attempts == [1, 2, 1, 3]
    assert attempt_of(registry, "cells", "another", "a", "old") == 1
    assert attempt_of(registry, "cells", "set", "a", "new") == 4


@pytest.mark.parametrize(
    ("field", "policy"), [("metric", {"metric": "pearson"}), ("guard", {"guards": {"pearson": 0.02}})]
)
def test_a_policy_by_the_scores_of_another_task_is_refused(
    field: str, policy: dict[str, Any], registry_home: Path, tmp_path: Path, data: Path
) -> None:
    registry = Registry.open(local(registry_home))
    version = trained(registry, tmp_path / "bundle", data, EVERYTHING)
    given = freeze(DataSource((data,), "labels"), "val", **policy)
    with pytest.raises(RequestError, match="expected one of the scores of segmentation, got 'pearson'") as caught:
        promote(registry, version, Wish(given=given))
    assert caught.value.field == field
    assert recorded_set(registry, "cells") is None

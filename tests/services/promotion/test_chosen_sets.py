"""A version is judged by what of the images it was trained on."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import read_image
from cytoray_analysis.networks import build_network
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_services.commands.promote import _freeze
from cytoray_services.datasets import DataSource, Labelled, hash_dataset, open_dataset
from cytoray_services.kinds.evaluated import ItemScore
from cytoray_services.promotion.attempts import attempt_of
from cytoray_services.promotion.checks import check_overlap
from cytoray_services.promotion.evaluation_set import freeze, recorded_set, settle
from cytoray_services.promotion.gate import PromotionRefusedError, PromotionRequest, _seen_by, _units, _unlike, promote
from cytoray_services.promotion.seen_data import SeenData, digests_of_images, record_seen_data
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


@pytest.mark.slow
def test_a_set_that_is_named_is_chosen_as_in_training(registry_home: Path, tmp_path: Path, data: Path) -> None:
    registry = Registry.open(local(registry_home))
    version = trained(registry, tmp_path / "bundle", data, CHOSEN)
    given = _freeze(registry, version, str(data), {}, split="val")
    assert given.source.selection == CHOSEN
    assert settle(registry, version, given).source.selection == CHOSEN
    assert settle(registry, version, None).open().selection == CHOSEN


@pytest.mark.slow
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
    with pytest.raises(RequestError, match=r"of the evaluation set of cells, everything, got channel: "):
        settle(registry, version, chosen)
    assert settle(registry, version, chosen, replacing=True, reason="another channel").source.selection == CHOSEN


@pytest.mark.slow
def test_what_chose_nothing_is_frozen_where_no_set_is_named(registry_home: Path, tmp_path: Path, data: Path) -> None:
    registry = Registry.open(local(registry_home))
    version = trained(registry, tmp_path / "bundle", data, CHOSEN)
    with pytest.raises(
        RequestError, match="have no split test, and val was used to choose epoch and decoding"
    ) as caught:
        settle(registry, version, None)
    assert "--on DATASET" in (caught.value.hint or "")
    shutil.copytree(data / "val", data / "test")
    version = trained(registry, tmp_path / "other", data, CHOSEN)
    assert settle(registry, version, None).split == "test"


@pytest.mark.slow
def test_policies_are_recorded_with_the_set_and_none_is_given_up(
    registry_home: Path, tmp_path: Path, data: Path
) -> None:
    registry = Registry.open(local(registry_home))
    version = trained(registry, tmp_path / "bundle", data, EVERYTHING)
    source = DataSource((data,), "labels")
    settle(registry, version, freeze(source, "val", metric="pq", guards={"ap90": 0.01, "dice": 0.02}))
    again = settle(registry, version, freeze(source, "val", guards={"ap90": 0.05, "iou": 0.1}))
    assert (again.metric, dict(again.guards)) == ("pq", {"ap90": 0.01, "dice": 0.02, "iou": 0.1})
    with pytest.raises(RequestError, match="expected the score 'pq' of the evaluation set of cells, got 'ap50'"):
        settle(registry, version, freeze(source, "val", metric="ap50"))


@pytest.mark.slow
def test_each_pair_of_versions_is_one_attempt_on_its_set(registry_home: Path, tmp_path: Path, data: Path) -> None:
    registry = Registry.open(local(registry_home))
    trained(registry, tmp_path / "bundle", data, EVERYTHING)
    attempts = [attempt_of(registry, "cells", "set", candidate, "old") for candidate in ("a", "b", "a", "d")]
    assert attempts == [1, 2, 1, 3]
    assert attempt_of(registry, "cells", "another", "a", "old") == 1
    assert attempt_of(registry, "cells", "set", "a", "new") == 4


@pytest.mark.slow
def test_neither_another_name_nor_an_image_more_gives_a_fresh_level(
    registry_home: Path, tmp_path: Path, data: Path
) -> None:
    registry = Registry.open(local(registry_home))
    trained(registry, tmp_path / "bundle", data, EVERYTHING)
    images = [hashlib.sha256(bytes([number])).hexdigest() for number in range(100)]

    def attempt(frozen: str, candidate: str, known: list[str]) -> int:
        return attempt_of(registry, "cells", frozen, candidate, "old", known)

    assert [attempt("set", name, images) for name in "ab"] == [1, 2]
    assert attempt("renamed", "c", images) == 3
    assert attempt("one less", "d", images[1:]) == 4
    assert attempt("half", "e", images[::2]) == 5
    assert attempt("half", "e", images[::2]) == 5
    assert attempt("others", "f", [hashlib.sha256(one.encode()).hexdigest() for one in images]) == 1


@pytest.mark.slow
def test_a_comparison_keeps_its_number_whatever_a_wrong_clock_says(
    registry_home: Path, tmp_path: Path, data: Path
) -> None:
    registry = Registry.open(local(registry_home))
    trained(registry, tmp_path / "bundle", data, EVERYTHING)
    later = json.dumps({"set": "set", "candidate": "a", "champion": "old"})
    registry.note("cells", {"comparison.29990101T000000.000000Z.ffff": later})
    assert attempt_of(registry, "cells", "set", "b", "old") == 2
    assert attempt_of(registry, "cells", "set", "b", "old") == 2


@pytest.fixture
def listed(data: Path) -> Path:
    """Eight images with a manifest that says of which kind and patient they are."""
    folder = data.parent / "listed"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for number in range(8):
            tifffile.imwrite(folder / kind / f"{number}.tif", np.full((16, 16), number, np.uint16))
    describe(folder, ["a", "b"] * 4)
    return folder


def describe(folder: Path, kinds: list[str]) -> None:
    rows = [f"images/{at}.tif,masks/{at}.tif,test,{kind},p{at // 2}" for at, kind in enumerate(kinds)]
    (folder / "manifest.csv").write_text("\n".join(["image,mask,split,kind,patient", *rows]) + "\n")


@pytest.mark.slow
def test_columns_that_judge_are_frozen_too(registry_home: Path, tmp_path: Path, data: Path, listed: Path) -> None:
    registry = Registry.open(local(registry_home))
    version = trained(registry, tmp_path / "bundle", data, EVERYTHING)
    source = DataSource((listed,), "labels")
    settle(registry, version, freeze(source, "test", by="kind", group="patient"))
    known = recorded_set(registry, "cells")
    assert known is not None
    assert known.changed_columns(known.open()) == []
    describe(listed, ["a"] * 8)  # so that the subgroup b is not asked about any more
    assert known.digest == hash_dataset(known.open())
    assert known.changed_columns(known.open()) == ["kind"]
    with pytest.raises(PromotionRefusedError, match="has changed in the column kind"):
        promote(registry, version, PromotionRequest())
    with pytest.raises(RequestError, match="which differs in the column 'kind'"):
        settle(registry, version, freeze(source, "test", by="kind"))


@pytest.mark.slow
def test_what_a_subgroup_may_lose_is_recorded_and_never_loosened(
    registry_home: Path, tmp_path: Path, data: Path, listed: Path
) -> None:
    registry = Registry.open(local(registry_home))
    version = trained(registry, tmp_path / "bundle", data, EVERYTHING)
    source = DataSource((listed,), "labels")

    def allowed(tolerance: float | None) -> float:
        return settle(registry, version, freeze(source, "test", by="kind", tolerance=tolerance)).allowed

    assert [allowed(one) for one in (None, 0.9, 0.01, None, 0.5)] == [0.02, 0.02, 0.01, 0.01, 0.01]


def test_that_the_champion_knows_the_images_is_said() -> None:
    source = DataSource((Path("/data"),), "labels")
    known, other = (SeenData(source, "", {}, {"train": frozenset({digest})}) for digest in ("a", "b"))
    check = check_overlap({"cells/2": other}, {"a": Path("/frozen/a.tif")}, {"cells/1": known})
    assert check.passed
    assert "but cells/1 was trained on 1 of the 1 frozen images" in check.reason
    assert check_overlap({"cells/2": other}, {"a": Path("/frozen/a.tif")}, {"cells/1": other}).reason.endswith(
        "for choosing the model"
    )


@pytest.mark.slow
def test_weights_from_a_bundle_that_is_not_registered_are_unknown(
    registry_home: Path, tmp_path: Path, data: Path
) -> None:
    registry = Registry.open(local(registry_home))
    version = trained(registry, tmp_path / "bundle", data, EVERYTHING)
    registered = replace(version, tags={**version.tags, "parent": f"cells {version.digest}"})
    assert all(seen is not None for seen in _seen_by(registry, registered).values())
    elsewhere = replace(version, tags={**version.tags, "parent": f"cells {'0' * 64}"})
    assert not check_overlap(_seen_by(registry, elsewhere), {}).passed
    hub = replace(version, tags={**version.tags, "parent": "timm/resnet18"})
    assert check_overlap(_seen_by(registry, hub), {}).passed


def test_models_that_answer_other_questions_are_not_compared() -> None:
    network = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 3, "widths": [4, 8]})

    def model(name: str, **arguments: Any) -> Bundle:
        task = TaskChoice(name=name, arguments=arguments)
        return Bundle(tmp, BundleSpec(name="cells", task=task, input=ModelInput(), network=network), "0" * 64)

    tmp = Path()
    instances = model("segmentation")
    three = model("semantic_segmentation", classes=["none", "cell", "mitosis"])
    merged = model("semantic_segmentation", classes=["none", "cell"], values={0: "none", 1: "cell", 2: "cell"})
    assert _unlike(instances, instances) is None
    assert _unlike(three, three) is None
    assert "model for semantic_segmentation" in (_unlike(three, instances) or "")
    assert "classes of pixels" in (_unlike(merged, three) or "")


@pytest.mark.slow
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
        promote(registry, version, PromotionRequest(given=given))
    assert caught.value.field == field
    assert recorded_set(registry, "cells") is None


def test_copies_of_one_image_are_one_unit_unless_their_group_is_given(listed: Path) -> None:
    shutil.copy(listed / "images" / "0.tif", listed / "images" / "5.tif")
    tifffile.imwrite(listed / "images" / "7.tif", np.full((16, 16), 6, np.uint8))  # another type
    dataset = open_dataset(listed)
    digests = digests_of_images(dataset)
    items = [
        ItemScore(Labelled((item,), read_image(item.image), None), None, None, {})  # type: ignore[arg-type]
        for item in dataset.items
    ]
    assert len(set(_units(items, None, digests).values())) == 6
    assert len(set(_units(items, None, {}).values())) == 8
    by_patient = _units(items, "patient", digests)
    assert [by_patient[item.image] for item in items[:3]] == ["group p0", "group p0", "group p1"]
    # Where nothing is said of it, an image stands alone.
    unsaid = [
        replace(one, labelled=replace(one.labelled, items=(replace(one.labelled.items[0], row={"patient": ""}),)))
        for one in items
    ]
    assert len(set(_units(unsaid, "patient", digests).values())) == 6

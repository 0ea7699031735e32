"""Faults that show when a training has ended: planted in data or recipe of a real training, and named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.images import image_from_array, read_image, read_labels, write_image
from cytoray_services.datasets import Dataset, open_dataset
from cytoray_services.datasets.synthetic.classification import make_classification
from cytoray_training.diagnosis.diagnose import Diagnosis
from cytoray_training.diagnosis.ending import DISPUTED
from cytoray_training.diagnosis.findings import find
from planted_faults import CLASSES, names, plan_for, trained

pytestmark = pytest.mark.slow

QUICK = {"epochs": 4}


def evidence(diagnosis: Diagnosis, name: str) -> str:
    (finding,) = (finding for finding in diagnosis.findings if finding.name == name)
    return finding.evidence


def test_of_a_healthy_segmentation_nothing_is_said_but_that_eight_images_are_few(
    healthy_segmentation: Diagnosis,
) -> None:
    assert names(healthy_segmentation) == {"too-few-examples"}
    assert "8 validation images" in evidence(healthy_segmentation, "too-few-examples")


def test_a_healthy_classifier_raises_nothing(healthy_classes: Diagnosis) -> None:
    assert names(healthy_classes) == set()


def test_splits_that_differ_repeat_each_other_and_are_labelled_wrongly_are_named(
    fields: Dataset, tmp_path: Path
) -> None:
    root = tmp_path / "spoilt"
    shutil.copytree(fields.root, root)
    spoilt = open_dataset(root)
    train, val = spoilt.split("train").items, spoilt.split("val").items
    chance = np.random.default_rng(0)
    for item in val:  # another microscope: brighter and out of focus
        pixels = read_image(item.image).read().astype(float)
        write_image(item.image, image_from_array(np.clip(pixels * 0.5 + 120, 0, 255).astype(np.uint8), "YX"))
    repeated = read_image(train[0].image).read().astype(float) * 0.9
    noisy = repeated + chance.normal(0, 1, repeated.shape)
    write_image(val[0].image, image_from_array(np.clip(noisy, 0, 255).astype(np.uint8).T.copy(), "YX"))
    labels = read_labels(train[0].truth or Path())
    write_image(val[0].truth or Path(), image_from_array(labels.T.copy(), "YX"))
    largest = [(np.bincount(read_labels(item.truth or Path()).ravel())[1:].max(initial=0), item) for item in val[1:]]
    _, victim = max(largest, key=lambda pair: pair[0])
    truth = read_labels(victim.truth or Path()).copy()
    number = int(np.bincount(truth.ravel())[1:].argmax()) + 1
    truth[truth == number] = 0  # forgotten by the annotator
    write_image(victim.truth or Path(), image_from_array(truth.astype(np.uint16), "YX"))

    # Long enough to be sure of an object that has no label.
    diagnosis = trained(plan_for(open_dataset(root), tmp_path / "home", training={"epochs": 24}), tmp_path / "run")

    assert "mean intensity" in evidence(diagnosis, "different-splits")
    same = evidence(diagnosis, "same-content")
    assert val[0].image.name in same
    assert train[0].image.name in same
    assert f"{victim.image.name} at" in evidence(diagnosis, "disputed-labels")
    assert (tmp_path / "run" / "diagnosis" / DISPUTED).is_file()


def test_wrong_classes_are_disputed_and_pictured(crops: Dataset, tmp_path: Path) -> None:
    val = [item for item in crops.items if item.split == "val"]
    wrong = set(val[3::15])
    other = {"round": "spindle", "spindle": "round"}
    items = tuple(replace(item, label=other[item.label or ""]) if item in wrong else item for item in crops.items)
    diagnosis = trained(plan_for(replace(crops, items=items), tmp_path / "home", CLASSES), tmp_path / "run")
    ending = diagnosis.facts.ending
    assert ending is not None
    centres = {tuple(np.mean(item.box, axis=0)) for item in wrong if item.box is not None}
    found = [one for one in ending.disputes if one.place in centres]
    assert len(found) >= len(wrong) / 2
    assert len(found) >= 0.7 * len(ending.disputes)
    assert "disputed-labels" in names(diagnosis)
    assert (tmp_path / "run" / "diagnosis" / DISPUTED).is_file()


@pytest.mark.long
def test_over_fitting_is_named(crops: Dataset, tmp_path: Path) -> None:
    chance = np.random.default_rng(1)  # labels that follow from nothing can be learnt by heart only
    items = tuple(replace(item, label=str(chance.choice(["round", "spindle"]))) for item in crops.items)
    few = [item for item in items if item.split == "train"][:48]
    val = [item for item in items if item.split == "val"]
    plan = plan_for(
        replace(crops, items=(*few, *val)),
        tmp_path / "home",
        CLASSES,
        augmentation={"flips": False, "zoom": [1.0, 1.0]},
        training={"epochs": 150, "validate_every": 150},
    )
    diagnosis = trained(plan, tmp_path / "run")
    assert "in training and" in evidence(diagnosis, "over-fitting")


def test_under_fitting_is_named(fields: Dataset, tmp_path: Path) -> None:
    plan = plan_for(fields, tmp_path / "home", training={"epochs": 1, "learning_rate": 1e-3, "validate_every": 1})
    diagnosis = trained(plan, tmp_path / "run")
    assert {"under-fitting"} <= names(diagnosis)
    assert "over-fitting" not in names(diagnosis)


def test_rare_classes_that_are_not_found_are_named(tmp_path: Path) -> None:
    unequal = make_classification(tmp_path / "data", images=24, size=160, seed=2, classes=2, imbalance=12)
    quick = {"epochs": 3, "validate_every": 3, "learning_rate": 1e-3}
    diagnosis = trained(plan_for(unequal, tmp_path / "home", CLASSES, training=quick), tmp_path / "run")
    assert "rare: " in evidence(diagnosis, "class-imbalance")


def test_a_score_from_a_few_images_is_said_to_be_uncertain(fields: Dataset, tmp_path: Path) -> None:
    chosen = [item for item in fields.items if item.split == "val"][:3]
    kept = tuple(item for item in fields.items if item.split != "val" or item in chosen)
    plan = plan_for(replace(fields, items=kept), tmp_path / "home", training={"epochs": 3, "validate_every": 3})
    assert "validation images" in evidence(trained(plan, tmp_path / "run"), "too-few-examples")


@pytest.mark.parametrize(("agreement", "reached"), [(0.6, True), (0.9999, False), (None, False)])
def test_a_score_as_good_as_annotators_agree_is_named(
    healthy_segmentation: Diagnosis, agreement: float | None, reached: bool
) -> None:
    scored = replace(healthy_segmentation.facts, agreement=agreement)
    interval = {finding.name: finding for finding in find(scored)}
    assert ("annotator-agreement" in interval) == reached

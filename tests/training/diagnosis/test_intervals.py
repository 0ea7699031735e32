"""The interval of a score holds the truth as often as it claims: units are resampled, and each score by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from cytoray_services.statistics.intervals import Interval
from cytoray_training.diagnosis.facts import Cells, Ending, Facts, ImageScore
from cytoray_training.diagnosis.findings.certainty import too_few_examples
from cytoray_training.diagnosis.findings.fitting import over_fitting
from cytoray_training.diagnosis.findings.intervals import score_interval, unit_count

RECIPE = {"training": {"weight_decay": 0.01}}


def classified(random: np.random.Generator, images: int, each: int, spread: float) -> Cells:
    """Cells of two classes; how often one is right depends on its image."""
    right = random.random(images * each) < np.repeat(expit(random.normal(2.0, spread, images)), each)
    truth = random.integers(0, 2, images * each)
    answered = np.where(right, truth, 1 - truth)
    return Cells(tuple(truth.tolist()), tuple(answered.tolist()), (0.5,) * len(truth), (0.9,) * len(truth))


def ending_of(random: np.random.Generator, images: int, spread: float, metric: str = "accuracy") -> Ending:
    scores = tuple(ImageScore(str(at), split, 0.5, 100) for split in ("train", "val") for at in range(images))
    cells = {split: classified(random, images, 100, spread) for split in ("train", "val")}
    return Ending(metric, scores, ("a", "b"), {}, cells)


def test_images_that_differ_widen_the_interval_so_that_it_holds_the_truth_and_accuse_no_one() -> None:
    true = float(expit(np.random.default_rng(5).normal(2.0, 1.0, 400_000)).mean())
    holds, accused = 0, 0
    for seed in range(40):
        ending = ending_of(np.random.default_rng(seed), 10, 1.0)
        low, high = score_interval(ending) or (0.0, 0.0)
        holds += low <= true <= high
        accused += over_fitting(Facts(RECIPE, "accuracy", ending=ending)) is not None
    assert holds >= 34
    assert accused == 0


def test_groups_are_resampled_whole() -> None:
    ending = ending_of(np.random.default_rng(1), 20, 1.0)
    grouped = replace(ending, images=tuple(replace(one, unit=str(int(one.file) // 4)) for one in ending.images))
    assert (unit_count(ending), unit_count(grouped)) == (20, 5)
    finding = too_few_examples(Facts(RECIPE, "accuracy", ending=replace(grouped, unit="patient")))
    assert finding is not None
    assert finding.severity == "warning"
    assert "5 patients" in finding.evidence


def test_each_score_has_its_own_interval() -> None:
    rare = Cells((0,) * 95 + (1,) * 5, (0,) * 95 + (0,) * 4 + (1,), (0.5,) * 100, (0.9,) * 100)
    found = {
        metric: score_interval(Ending(metric, (), ("a", "b"), {}, {"val": rare}))
        for metric in ("accuracy", "balanced_accuracy", "f1_macro", "ece")
    }
    assert len(set(found.values())) == 4
    low, high = found["f1_macro"] or (1.0, 0.0)
    assert low < 0.656 < high


def test_an_interval_that_was_recorded_is_taken() -> None:
    ending = replace(ending_of(np.random.default_rng(1), 10, 1.0), intervals={"accuracy": Interval(0.7, 0.9, 7)})
    assert score_interval(ending) == (0.7, 0.9)
    assert unit_count(ending) == 7


@pytest.mark.parametrize(("images", "warned"), [(5, True), (6, False)])
def test_below_six_images_it_always_warns(images: int, warned: bool) -> None:
    scores = tuple(ImageScore(str(at), "val", 0.9, 10) for at in range(images))
    finding = too_few_examples(Facts(RECIPE, "ap50", ending=Ending("ap50", scores)))
    assert (finding is not None) == warned
    assert score_interval(Ending("ap50", scores)) == pytest.approx((0.9, 0.9))


def test_decibels_are_measured_by_their_own_size() -> None:
    random = np.random.default_rng(0)
    scores = tuple(ImageScore(str(at), "val", float(random.normal(30, 1)), 1) for at in range(20))
    assert too_few_examples(Facts(RECIPE, "psnr", ending=Ending("psnr", scores))) is None


def test_of_an_error_less_is_better() -> None:
    random = np.random.default_rng(0)
    scores = [
        ImageScore(f"{split}{at}", split, float(random.normal(mean, 0.02)), 1)
        for split, mean in (("train", 0.2), ("val", 0.6))
        for at in range(12)
    ]
    finding = over_fitting(Facts(RECIPE, "nrmse", ending=Ending("nrmse", tuple(scores))))
    assert finding is not None
    swapped = [replace(one, split="val" if one.split == "train" else "train") for one in scores]
    assert over_fitting(Facts(RECIPE, "nrmse", ending=Ending("nrmse", tuple(swapped)))) is None

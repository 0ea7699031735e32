"""A baseline without learning, the agreement of what comes next, and pictures of stains."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from cytoray_analysis.downstream import downstream_agreement
from cytoray_analysis.errors import AxesError, DatasetError
from cytoray_analysis.images import read_image
from cytoray_analysis.label_free_baseline import Pair, baseline_scores, label_free_baseline
from cytoray_analysis.label_free_pictures import StainEntry, stain_sheet

ECOLI = Path(__file__).parents[2] / "../shared/data/labelfree/ecoli_phase_yfp"


def cells(seed: int, sign: int = -1) -> Pair:
    """Return a noise channel and one in which cells stand out, and the stain of the cells."""
    rng = np.random.default_rng(seed)
    body = np.zeros((96, 96))
    for y, x in rng.integers(6, 90, (12, 2)):
        body[y - 4 : y + 5, x - 4 : x + 5] = 1
    body = gaussian_filter(body, 1.5)
    light = np.stack((rng.normal(0, 1, body.shape), 5000 + sign * 800 * body + rng.normal(0, 30, body.shape)))
    return light, (200 + 3000 * body + rng.normal(0, 20, body.shape))[np.newaxis]


@pytest.mark.slow
@pytest.mark.parametrize("sign", [-1, 1])
def test_channel_and_sign_are_found(sign: int) -> None:
    (best,) = label_free_baseline([cells(seed, sign) for seed in range(3)])
    assert (best.channel, best.sign) == (1, sign)


def test_the_prediction_is_in_the_units_of_the_target() -> None:
    scores = baseline_scores([cells(seed) for seed in range(3)], [cells(seed) for seed in range(3, 6)])
    assert scores["pearson"] > 0.95
    assert scores["nrmse"] < 0.3


def test_every_target_channel_has_a_function_of_its_own() -> None:
    made = [(light, np.concatenate((stain, -stain))) for light, stain in map(cells, range(3))]
    first, second = label_free_baseline(made)
    assert (first.sign, second.sign) == (-1, 1)
    scores = baseline_scores(made, made, ["yes", "no"])
    assert min(scores["pearson/yes"], scores["pearson/no"]) > 0.8


def test_unknown_pixels_do_not_count() -> None:
    light, stain = cells(0)
    hidden = stain.copy()
    hidden[:, :20] = np.nan
    assert label_free_baseline([(light, hidden)])[0].sign == -1
    assert baseline_scores([(light, hidden)], [(light, hidden)])["pearson"] > 0.95


@pytest.mark.slow
def test_volumes_work_as_planes_do() -> None:
    light, stain = cells(0)
    volume = np.stack([light] * 4, axis=1), np.stack([stain] * 4, axis=1)
    assert baseline_scores([volume], [volume])["pearson"] > 0.9


def test_no_pair_is_refused() -> None:
    with pytest.raises(DatasetError, match="training pairs"):
        label_free_baseline([])


@pytest.mark.slow
@pytest.mark.skipif(not ECOLI.is_dir(), reason=f"{ECOLI} is not here")
def test_bacteria_reach_the_known_floor() -> None:
    with (ECOLI / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))

    def read(split: str, every: int) -> list[Pair]:
        chosen = [row for row in rows if row["split"] == split][::every]
        return [
            (read_image(ECOLI / row["input_phase"]).select("CYX").read(),
             read_image(ECOLI / row["target_yfp"]).select("CYX").read())
            for row in chosen
        ]  # fmt: skip

    assert baseline_scores(read("train", 10), read("val", 2))["pearson"] > 0.9


def segment(image: np.ndarray) -> np.ndarray:
    return np.asarray(label(image > 1200)[0], np.int32)


def test_agreement_is_whole_for_the_real_stain_and_falls_with_lost_cells() -> None:
    real = [cells(seed)[1][0] for seed in range(3)]
    half = [np.where(np.arange(96)[:, None] < 48, image, 200) for image in real]
    assert downstream_agreement(segment, real, real) == {"ap50": 1.0, "f1_50": 1.0, "dice": 1.0}
    lost = downstream_agreement(segment, real, half)
    assert 0.2 < lost["ap50"] < 0.8


def test_true_labels_are_scored_on_both_stains() -> None:
    real = [cells(seed)[1][0] for seed in range(2)]
    empty = [np.full_like(image, 200) for image in real]
    scores = downstream_agreement(segment, real, empty, [segment(image) for image in real])
    assert (scores["ap50_real"], scores["ap50_predicted"]) == (1.0, 0.0)


@pytest.mark.slow
def test_the_sheet_is_a_picture_with_a_panel_for_the_uncertainty_where_there_is_one() -> None:
    light, stain = cells(0)
    plain = StainEntry("worst", light, stain[0], stain[0] * 0.9)
    sure = StainEntry("best", light, stain[0], stain[0], np.full_like(stain[0], 100.0))
    wide, narrow = stain_sheet([plain, sure], title="stains"), stain_sheet([plain])
    assert wide.startswith(b"\x89PNG")
    width = [int.from_bytes(png[16:20], "big") for png in (wide, narrow)]
    assert width[0] > width[1]


def test_a_sheet_of_volumes_is_refused() -> None:
    volume = np.zeros((1, 3, 8, 8))
    with pytest.raises(AxesError, match="one size"):
        stain_sheet([StainEntry("x", volume, volume[0], volume[0])])

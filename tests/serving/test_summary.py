"""What is said of an answer in a few numbers, and how far two answers agree."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cytoray_analysis.cells import Cells
from cytoray_analysis.images import image_from_array
from cytoray_analysis.kinds import TruthKind
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_serving.answers.summary import compare, summarise
from serving_samples import moving_squares, noise

TWO_CELLS = Cells(np.array([[[0, 0], [16, 16]], [[20, 20], [36, 36]]]), np.array([1, 2]))


def answer(kind: TruthKind, value: object, objects: int = 0, confidence: object = None) -> Prediction:
    model: Any = SimpleNamespace(task=SimpleNamespace(output=SimpleNamespace(truth=kind)))
    image = image_from_array(np.zeros((8, 8), np.uint8), "YX")
    return Prediction(value, objects, {}, image, model, confidence=confidence)  # type: ignore[arg-type]


def test_labels_are_described_by_their_objects() -> None:
    labels = np.zeros((100, 100), np.int32)
    labels[:10, :10], labels[20:40, :10], labels[50:80, :10] = 1, 2, 3
    sure = np.array([0, 0.5, 0.7, 0.9], np.float32)
    assert summarise(answer("labels", labels, 3, sure), 0.01) == {
        "objects_per_megapixel": 300,
        "covered": 0.06,
        "median_area": 200,
        "mean_confidence": pytest.approx(0.7),
    }
    empty = answer("labels", np.zeros((8, 8), np.int32), 0, np.zeros(1, np.float32))
    assert summarise(empty, 1.0) == {"objects_per_megapixel": 0, "covered": 0}


def test_images_are_described_by_channel() -> None:
    pixels = np.random.default_rng(0).normal([[[10.0]], [[50.0]]], 2.0, (2, 1000, 1000)).astype(np.float32)
    summary = summarise(answer("image", pixels), 1.0)
    assert summary["channel_0_mean"] == pytest.approx(10, abs=0.1)
    assert summary["channel_1_mean"] == pytest.approx(50, abs=0.1)
    assert summary["channel_1_deviation"] == pytest.approx(2, abs=0.05)
    assert summary["channel_1_quantile99"] == pytest.approx(50 + 2 * 2.326, abs=0.2)
    assert summarise(answer("image", pixels[:1, :4, :4]), 1e-5)["channel_0_mean"] == pytest.approx(10, abs=3)


def test_real_answers_of_every_kind_are_described(
    segmenter: Predictor, stainer: Predictor, classifier: Predictor, linker: Predictor
) -> None:
    image = image_from_array(noise(64, 64), "YX")
    labels = summarise(segmenter.predict(image), 64 * 64 / 1e6)
    assert {"objects_per_megapixel", "covered"} <= labels.keys()
    assert len(summarise(stainer.predict(image), 64 * 64 / 1e6)) % 3 == 0
    classified = classifier.predict(image, TWO_CELLS)
    classes = summarise(classified, 64 * 64 / 1e6)
    assert sum(value for name, value in classes.items() if name.startswith("share_of_")) == pytest.approx(1)
    top = [max(probabilities) for probabilities in classified.answer.probabilities.tolist()]
    assert classes["mean_top_probability"] == pytest.approx(sum(top) / 2)
    movie, masks = moving_squares()
    lineage = summarise(linker.predict(image_from_array(movie, "TYX"), masks), movie.size / 1e6)
    assert lineage["tracks_per_frame"] > 0
    everything = [*labels.values(), *classes.values(), *lineage.values()]
    assert all(isinstance(value, float) and np.isfinite(value) for value in everything)


@pytest.mark.slow
def test_an_answer_agrees_with_itself_and_not_with_an_empty_one(
    segmenter: Predictor, stainer: Predictor, classifier: Predictor, linker: Predictor
) -> None:
    image = image_from_array(noise(64, 64), "YX")
    movie, masks = moving_squares()
    predictions = {
        segmenter: segmenter.predict(image),
        stainer: stainer.predict(image),
        classifier: classifier.predict(image, TWO_CELLS),
        linker: linker.predict(image_from_array(movie, "TYX"), masks),
    }
    for prediction in predictions.values():
        scores = compare(prediction, prediction)
        assert next(iter(scores.values())) == pytest.approx(1, abs=1e-6), scores
        assert not [name for name in scores if "/" in name]
    labels = np.zeros((64, 64), np.int32)
    labels[:10, :10] = 1
    found = replace(predictions[segmenter], answer=labels, objects=1)
    nothing = replace(found, answer=np.zeros_like(labels), objects=0)
    assert compare(found, nothing)["ap50"] == 0


def test_describing_a_megapixel_takes_a_small_multiple_of_a_pass_over_it() -> None:
    labels = np.zeros((1024, 1024), np.int32)
    for number in range(1, 501):
        row, column = np.random.default_rng(number).integers(0, 1000, 2)
        labels[row : row + 20, column : column + 20] = number
    for given in (answer("labels", labels, 500), answer("image", labels[np.newaxis].astype(np.float32))):
        seconds: dict[str, list[float]] = {"summary": [], "pass": []}
        for _ in range(20):
            for name, work in (("summary", lambda given=given: summarise(given, 1.0)), ("pass", (labels + 1).max)):
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
        assert min(seconds["summary"]) < 25 * min(seconds["pass"])

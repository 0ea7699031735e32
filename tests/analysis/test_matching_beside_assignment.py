"""Scores of objects beside an independent implementation of them, on random answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from cytoray_analysis.tasks.instance_scores import THRESHOLDS, count_objects, score_instances

Labels = np.ndarray


def draw_labels(random: np.random.Generator, objects: int, side: int = 40) -> Labels:
    image = np.zeros((side, side), np.int32)
    for number in range(1, objects + 1):
        (y, x), (height, width) = random.integers(0, side - 8, 2), random.integers(2, 9, 2)
        image[y : y + height, x : x + width] = number
    return image


def matched_by_assignment(truth: Labels, answer: Labels, threshold: float) -> tuple[int, int, int, float]:
    """Match as StarDist does: the Hungarian method on −(IoU ≥ threshold) − IoU / (2 n)."""
    true, answered = np.unique(truth[truth > 0]), np.unique(answer[answer > 0])
    iou = np.array(
        [[np.sum((truth == i) & (answer == j)) / np.sum((truth == i) | (answer == j)) for j in answered] for i in true]
    ).reshape(len(true), len(answered))
    found, quality = 0, 0.0
    if iou.size and (iou >= threshold).any():
        rows, columns = linear_sum_assignment(-(iou >= threshold).astype(float) - iou / (2 * min(iou.shape)))
        right = iou[rows, columns] >= threshold
        found, quality = int(right.sum()), float(iou[rows, columns][right].sum())
    return found, len(answered) - found, len(true) - found, quality


@pytest.mark.slow
def test_scores_of_objects_are_those_of_matching_by_assignment() -> None:
    random = np.random.default_rng(0)
    for _ in range(15):
        truths = [draw_labels(random, int(random.integers(0, 12))) for _ in range(4)]
        answers = [
            np.roll(one, random.integers(-1, 2, 2), (0, 1)) if random.random() < 0.8 else draw_labels(random, 6)
            for one in truths
        ]
        ours = score_instances([count_objects(a, t) for a, t in zip(answers, truths, strict=True)])
        for name, threshold in (("ap50", 0.5), ("ap70", 0.7), ("ap75", 0.75), ("ap90", 0.9)):
            pairs = [matched_by_assignment(t, a, threshold) for t, a in zip(truths, answers, strict=True)]
            found, invented, missed, quality = np.sum(pairs, axis=0)
            assert ours[name] == pytest.approx(found / (found + invented + missed))
            if threshold == 0.5:
                assert ours["f1_50"] == pytest.approx(2 * found / (2 * found + invented + missed))
                assert ours["pq"] == pytest.approx(quality / (found + invented / 2 + missed / 2))
        inside, answered = np.stack(truths) > 0, np.stack(answers) > 0
        assert ours["iou"] == pytest.approx((inside & answered).sum() / (inside | answered).sum())
        every = [[matched_by_assignment(t, a, at) for t, a in zip(truths, answers, strict=True)] for at in THRESHOLDS]
        found, invented, missed, _ = np.moveaxis(np.array(every), 2, 0)
        objects = found + invented + missed
        assert ours["msa_pooled"] == pytest.approx((found.sum(axis=1) / objects.sum(axis=1)).mean())
        per_image = found[:, objects[0] > 0] / objects[:, objects[0] > 0]
        assert ours["msa"] == pytest.approx(per_image.mean())

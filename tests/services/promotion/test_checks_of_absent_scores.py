"""Where a score has nothing to count, the gate does not judge."""

from __future__ import annotations

import numpy as np
import pytest

from cytoray_analysis.tasks import get_task
from cytoray_services.kinds.evaluated import Evaluation
from cytoray_services.promotion.checks import check_better, check_losses
from cytoray_services.promotion.resampling import find_loss
from cytoray_services.statistics.counts import unit_scores
from simulated_promotions import compare


def evaluation(value: float | None) -> Evaluation:
    return Evaluation({} if value is None else {"ap50": value}, {}, (), 0.0, {}, "ap50")


@pytest.mark.parametrize("champion", [None, evaluation(0.5), evaluation(None)])
def test_a_candidate_without_a_score_does_not_pass(champion: Evaluation | None) -> None:
    check = check_better(None, evaluation(None), champion)
    assert not check.passed
    assert "cannot compare: ap50 of the candidate is absent" in check.reason
    assert check_better(None, evaluation(0.5)).passed


def test_what_is_invented_where_the_champion_rightly_answers_nothing_is_a_loss() -> None:
    empty, cell = np.zeros((8, 8), np.int32), np.zeros((8, 8), np.int32)
    cell[2:5, 2:5] = 1
    score, truths = get_task("segmentation").score, [empty] * 8
    inventing, silent = (unit_scores(answers, truths, range(8), score) for answers in ([cell] * 8, [empty] * 8))
    loss = find_loss("kind = empty", "ap50", inventing, silent, 0.02, level=0.05)
    assert (loss.candidate, loss.champion, loss.groups, loss.verdict) == (0.0, None, 8, "worse")
    check = check_losses("subgroups", [loss], "")
    assert not check.passed
    assert check.reason.endswith("kind = empty (ap50 0.000 after –, over 8)")
    assert find_loss("kind = empty", "ap50", silent, inventing, 0.02, level=0.05).verdict == "unknown"
    # Few images cannot show it, and a precision that a silent champion lacks is no merit of it.
    few = unit_scores([cell] * 3 + [empty] * 5, truths, range(8), score)
    assert find_loss("kind = empty", "ap50", few, silent, 0.02, level=0.05).verdict == "unknown"
    assert find_loss("precision50", "precision50", inventing, silent, 0.02, level=0.05).verdict == "unknown"


def test_a_resample_without_anything_to_count_favours_none() -> None:
    empty, cell = np.zeros((8, 8), np.int32), np.zeros((8, 8), np.int32)
    cell[2:5, 2:5] = 1
    truths, right, wrong = [empty, cell], [empty, cell], [empty, empty]
    score = get_task("segmentation").score
    counted = unit_scores(right, truths, ["a", "b"], score)
    assert "ap50" in counted.counted
    assert np.isnan(counted.of["ap50"](np.array([[2.0, 0.0]]))[0])
    found = compare("ap50", (right, truths), (wrong, truths), ["a", "b"], score, resamples=400)
    assert found.probability > 0.15  # a quarter of the draws holds the empty image alone

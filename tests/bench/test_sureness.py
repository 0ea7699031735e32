"""Intervals of shares, quantiles and ratios hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from compare_servers import Measured, ratios_of, show_tail
from sureness import highest_quantile, quantile, quantile_ratio, share_interval, show_share


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(1, 20, 0.00127, 0.24873), (0, 20, 0.0, 0.16843), (20, 20, 0.83157, 1.0), (2, 400, 0.00061, 0.01794)],
)
def test_the_interval_of_a_share_is_exact(count: int, of: int, low: float, high: float) -> None:
    assert share_interval(count, of) == pytest.approx((low, high), abs=1e-5)


def test_a_share_is_shown_with_its_interval() -> None:
    assert show_share(1, 20) == "1 of 20 (0.13 to 24.9 %)"
    assert show_share(0, 10_000) == "0 of 10,000 (0 to 0.037 %)"
    assert show_share(0, 0) == "–"


def test_more_than_all_is_no_share() -> None:
    with pytest.raises(ValueError, match="got 3 of 2"):
        share_interval(3, 2)


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_intervals_of_quantiles_hold_the_true_one_as_often_as_they_say(share: float) -> None:
    random, true = np.random.default_rng(0), -np.log(1 - share)  # of the exponential distribution
    found = [quantile(random.exponential(size=1000), share) for _ in range(300)]
    held = sum(one is not None and one.low <= true <= one.high for one in found)
    assert 0.92 <= held / len(found) <= 0.99


@pytest.mark.parametrize(
    ("answers", "highest"), [(1000, 0.99), (999, 0.95), (200, 0.95), (199, 0.9), (100, 0.9), (99, None)]
)
def test_a_quantile_takes_ten_answers_above_it(answers: int, highest: float | None) -> None:
    assert highest_quantile(range(answers)) == highest
    assert highest_quantile(range(answers), range(5000)) == highest


def test_p99_of_too_few_answers_is_not_reported() -> None:
    assert quantile(range(999), 0.99) is None
    few, many = [show_tail([0.01 * number for number in range(count)]) for count in (999, 1000)]
    assert few.startswith("p95 ")
    assert many.startswith("p99 ")
    assert show_tail([0.1] * 99) == "–"


def test_the_interval_of_a_ratio_of_quantiles_holds_the_true_one() -> None:
    random = np.random.default_rng(0)
    found = [
        quantile_ratio(2 * random.exponential(size=500), random.exponential(size=500), 0.9, draws=200)
        for _ in range(60)
    ]
    assert sum(one.low <= 2 <= one.high for one in found) / len(found) >= 0.85
    assert all(one.low < one.value < one.high for one in found)


def test_servers_are_compared_by_a_quantile_that_both_have_with_its_interval() -> None:
    random = np.random.default_rng(0)
    servers = [
        Measured(name, 256, "bf16", [70.0], list(seconds + random.exponential(0.1, size=count)), [0.1], [0.1])
        for name, seconds, count in (
            ("cytoray", 0.1, 1200),
            ("litserve, predictor", 0.2, 300),
            ("bare Predictor", 0, 9),
        )
    ]
    (slow,) = [ratio for ratio in ratios_of(servers) if ratio.name.startswith("1/p")]
    assert slow.name == "1/p95 of cytoray over litserve, predictor, 256 × 256"
    assert slow.interval is not None
    assert slow.interval[0] < slow.value < slow.interval[1]
    assert f"({slow.interval[0]:.2f} to {slow.interval[1]:.2f})" in slow.row()

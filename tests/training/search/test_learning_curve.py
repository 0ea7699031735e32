"""Learning curves: what is said of planted ones, and a real one from trainings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.errors import RequestError
from cytoray_services.settings import load_settings
from cytoray_training.recipe import Recipe
from cytoray_training.search.learning_curve import fit_curve, run_curve

MakeRecipe = Callable[..., Recipe]
LABELS = [10.0, 20.0, 50.0, 100.0, 200.0]


def planted(ceiling: float, amplitude: float, exponent: float, noise: float, seed: int = 0) -> list[float]:
    scatter = np.random.default_rng(seed).normal(0, noise, len(LABELS))
    return [ceiling - amplitude * n**-exponent + off for n, off in zip(LABELS, scatter, strict=True)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("amplitude", "exponent"), [(1.2, 0.4), (0.8, 0.3)])
def test_a_curve_that_still_rises_asks_for_more_labels_and_says_how_much_they_bring(
    amplitude: float, exponent: float, seed: int
) -> None:
    curve = fit_curve(LABELS, planted(0.95, amplitude, exponent, 0.004, seed))
    gain = amplitude * (200**-exponent - 400**-exponent)
    assert curve.more_helps is True
    assert curve.low <= gain <= curve.high
    assert curve.gain == pytest.approx(gain, abs=0.015)
    assert curve.verdict.startswith(f"yes: about {curve.gain:+.2f} at twice the labels")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("amplitude", "exponent"), [(0.0, 1.0), (0.9, 1.4)])
def test_a_flat_curve_does_not(amplitude: float, exponent: float, seed: int) -> None:
    curve = fit_curve(LABELS, planted(0.8, amplitude, exponent, 0.002, seed))
    assert curve.more_helps is False
    assert curve.verdict.startswith("no: flat within its spread")


def test_a_curve_that_falls_promises_nothing() -> None:
    assert fit_curve(LABELS, [0.8, 0.79, 0.785, 0.78, 0.78]).more_helps is not True


@pytest.mark.parametrize("seed", range(5))
def test_scores_that_scatter_more_than_they_rise_are_called_undecided(seed: int) -> None:
    assert fit_curve(LABELS, planted(0.8, 0.3, 0.2, 0.08, seed)).more_helps is not True


def test_shares_that_make_no_curve_are_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path / "home")})
    for shares in ([0.5, 1.0], [0.0, 0.5, 1.0], [0.5, 1.0, 2.0]):
        with pytest.raises(RequestError, match="shares"):
            run_curve(make_recipe(), settings, shares=shares)
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("without_ray")
def test_trainings_at_growing_shares_make_a_curve_with_a_picture(cytoray_home: Path, make_recipe: MakeRecipe) -> None:
    outcome = run_curve(make_recipe(epochs=1), load_settings(), shares=[0.2, 0.5, 1.0])
    labels = [point["labels"] for point in outcome["points"]]
    assert labels == sorted(labels)
    assert labels[0] < labels[-1]
    assert outcome["verdict"].split(":")[0] in ("yes", "no", "inconclusive")
    assert Path(outcome["picture"]).read_bytes().startswith(b"\x89PNG")
    assert outcome["verdict"] in Path(outcome["report"]).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "noise", "wanted"),
    [("flat", 0.015, "no or unknown"), ("late plateau", 0.015, "no or unknown"), ("rising", 0.005, "yes")],
)
def test_verdicts_over_many_noisy_curves(name: str, noise: float, wanted: str) -> None:
    labels = np.array([20, 40, 100, 200, 400.0])
    curve = {"flat": 0 * labels + 0.8, "late plateau": np.where(labels < 40, 0.70, 0.80)}
    true = curve.get(name, 0.95 - 0.9 * labels**-0.28)
    random = np.random.default_rng(1)
    said = [fit_curve(labels.tolist(), (true + random.normal(0, noise, 5)).tolist()).more_helps for _ in range(20)]
    assert said.count(True) >= 19 if wanted == "yes" else said.count(True) <= 1

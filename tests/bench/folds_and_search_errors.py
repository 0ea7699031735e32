"""How far the scores of cross-validation and of a search are from the truth, in simulation. By hand.

    python tests/bench/folds_and_search_errors.py [--runs 200] [--only folds|search]

Folds: a logistic regression on 20-dimensional Gaussians of patients who differ; the truth is the accuracy of the same
training runs on 800 new patients. The epoch is the best of 30 on the part that chooses. Printed: bias, how often the
interval holds the truth, and its width.

Search: recipes of equal or different worth, seeds that differ by 0.01, and validations of images with noise. Printed:
how much too good the selection score is, and what the comparison on images that chose nothing says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cytoray_services.datasets import Dataset, Item
from cytoray_services.statistics.counts import UnitScores, ratio_of
from cytoray_training.search.comparison import compare_recipes
from cytoray_training.search.folds import scored_over_trained, split_folds, spread_of
from cytoray_training.search.study import Member

FEATURES, EPOCHS, FOLDS, METRIC = 20, 30, 5, "ap50"
Cells = tuple[np.ndarray, np.ndarray]


def draw_patients(random: np.random.Generator, patients: int, per: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, classes and owners of cells; patients have a centre and an inclination of their own."""
    centre = random.normal(0, 1.0, (patients, FEATURES))
    weights = np.r_[np.full(4, 0.6), np.zeros(FEATURES - 4)]
    inclination = random.normal(0, 0.9, patients)
    owner = np.repeat(np.arange(patients), per)
    x = random.normal(size=(len(owner), FEATURES)) + centre[owner]
    y = (x - centre[owner]) @ weights + inclination[owner] + random.normal(0, 0.7, len(owner)) > 0
    return x, y.astype(float), owner


def accuracies(x: np.ndarray, y: np.ndarray, sets: list[Cells]) -> np.ndarray:
    """Train, and return the accuracy on each set after each epoch, (epochs, sets)."""
    w, b, scores = np.zeros(FEATURES), 0.0, []
    for _ in range(EPOCHS):
        for rows in np.array_split(np.arange(len(x)), 4):
            p = 1 / (1 + np.exp(-(x[rows] @ w + b)))
            w, b = w - 0.5 * x[rows].T @ (p - y[rows]) / len(rows), b - 0.5 * (p - y[rows]).mean()
        scores.append([float(((cells @ w + b > 0) == classes).mean()) for cells, classes in sets])
    return np.array(scores)


def one_cross_validation(seed: int, patients: int, per: int) -> tuple[float, float, float, float]:
    """Return mean, low and high of the interval, and the truth, through the folds of Cytoray."""
    random = np.random.default_rng(seed)
    x, y, owner = draw_patients(random, patients, per)
    new = draw_patients(random, 800, 1)[:2]
    items = tuple(
        Item(Path(f"/d/{at}.tif"), None, "train", {"group": f"p{patient}"}, label=str(int(y[at])))
        for at, patient in enumerate(owner)
    )
    scores, truths, ratios = [], [], []
    for fold in split_folds(Dataset(Path("/d"), items, "class"), FOLDS, seed=seed):
        splits = np.array([item.split for item in fold.items])
        train, val, test = (splits == split for split in ("train", "val", "test"))
        found = accuracies(x[train], y[train], [(x[val], y[val]), (x[test], y[test]), new])
        best = int(found[:, 0].argmax())
        scores.append({"accuracy": found[best, 1]})
        truths.append(found[best, 2])
        ratios.append(scored_over_trained(fold, None))
    spread = spread_of(scores, float(np.mean(ratios)))["accuracy"]
    return spread.mean, spread.low, spread.high, float(np.mean(truths))


def folds(runs: int) -> None:
    """Print how good cross-validation is."""
    for patients, per in ((120, 1), (12, 10), (6, 10), (40, 3)):
        found = [one_cross_validation(seed, patients, per) for seed in range(runs)]
        mean, low, high, truth = np.array(found).T
        print(
            f"folds: {patients} patients × {per}: mean {mean.mean():.3f}, truth {truth.mean():.3f} "
            f"({np.mean(mean - truth):+.4f} ± {np.std(mean - truth) / np.sqrt(runs):.4f}); interval holds it in "
            f"{np.mean((low <= truth) & (truth <= high)):.1%}, width {np.mean(high - low):.3f}",
            flush=True,
        )


def mean_of(values: np.ndarray) -> UnitScores:
    """Return a score that is the mean over units."""
    whole, count = float(values.mean()), len(values)
    of = {METRIC: ratio_of(values, np.ones(len(values)))}
    return UnitScores({METRIC: whole}, count, frozenset(of), of)


def one_search(
    random: np.random.Generator, trials: int, spread: float, images: int
) -> tuple[float, float, float, float, float, float] | None:
    """Return how much too good the selection score is, the true gain, and the comparison's gain, ends and verdict.

    None where the recipe as it is is the best, so that nothing is compared.
    """
    recipes = 0.70 + random.normal(0, spread, trials)
    models = recipes + random.normal(0, 0.01, trials)
    members, found = [], []
    for number, model in enumerate(models):
        true = model - 0.08 * np.exp(-np.arange(1, 9) / 2)
        shown = true + random.normal(0, 0.015, 8)
        history = tuple({"epoch": epoch + 1, METRIC: float(score)} for epoch, score in enumerate(shown))
        members.append(Member(f"trial-{number + 1:03d}", {}, "completed", None, history))
        found.append(float(true[int(shown.argmax())]))
    best = max(range(trials), key=lambda at: members[at].goodness(METRIC))
    if best == 0:
        return None
    too_good = float(members[best].best(METRIC) or 0.0) - found[best]
    # Images differ in how hard they are, for all models alike, and in what each model makes of them.
    hard = random.normal(0, 0.1, images)

    def answered(recipe: int) -> list[UnitScores]:
        worth = recipes[recipe] + random.normal(0, 0.01, 2)
        return [mean_of(one + hard + random.normal(0, 0.05, images)) for one in worth]

    compared = compare_recipes(METRIC, answered(best), answered(0), unit="image")
    true_gain = float(recipes[best] - recipes[0])
    verdict = {"better": 1.0, "no better": -1.0}.get(compared.verdict, 0.0)
    return too_good, true_gain, compared.gain, compared.low, compared.high, verdict


def search(runs: int) -> None:
    """Print how good the comparison at the end of a search is."""
    for spread in (0.0, 0.01, 0.03):
        for trials, images in ((12, 12), (12, 60), (50, 60)):
            random = np.random.default_rng(0)
            rows = [row for _ in range(runs) if (row := one_search(random, trials, spread, images))]
            too_good, true, gain, low, high, verdict = np.array(rows).T
            better = verdict > 0
            wrong = float(np.mean(true[better] <= 0)) if better.any() else 0.0
            print(
                f"search: recipes differ by {spread:.2f}, {trials} trials, {images} images: selection score "
                f"{too_good.mean():+.4f}; gain {gain.mean():+.4f}, truly {true.mean():+.4f}; interval holds it in "
                f"{np.mean((low <= true) & (true <= high)):.1%}; better {better.mean():.1%} (of these wrongly "
                f"{wrong:.1%}), no better {np.mean(verdict < 0):.1%}",
                flush=True,
            )


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--only", choices=["folds", "search"])
    asked = parser.parse_args()
    if asked.only != "search":
        folds(asked.runs)
    if asked.only != "folds":
        search(5 * asked.runs)


if __name__ == "__main__":
    main()

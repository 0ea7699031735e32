"""How often the gate is wrong: thousands of simulated promotions through its own functions. By hand.

    python tests/bench/gate_errors.py [--runs 1000] [--images 40]

Prints how often an equal candidate passes that was the best of many validations on other images, how often any of 50
equal candidates passes on one set, how often equal models are refused for a subgroup, and how often real differences
are found. How far out in the tail the level holds: `gate_levels.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cytoray_services.promotion.resampling import LOSSES, compare_units, find_loss, level_of
from cytoray_services.statistics.counts import unit_scores

sys.path.insert(0, str(Path(__file__).parents[1]))
from simulated_promotions import TASK, Images, draw_images, parts_of, quality, shift_for

METRIC = "balanced_accuracy"
RESAMPLES = 4000


def better(images: Images, new: np.ndarray, old: np.ndarray, seed: int, attempt: int = 1) -> bool:
    """Ask the gate."""
    truths = images.truths
    one, other = (
        unit_scores(images.answers(weights), truths, range(images.count), TASK.score, [METRIC])
        for weights in (new, old)
    )
    level = level_of(attempt)
    return compare_units(METRIC, one, other, images.count, seed=seed, resamples=RESAMPLES, level=level).better


def chosen_elsewhere(seed: int, count: int, validations: int) -> tuple[bool, float]:
    """Choose the best of many equal weights on validation images, and judge it on others."""
    random = np.random.default_rng((seed, validations))
    val, test = draw_images(random, count), draw_images(random, count)
    seeds = [int(random.integers(2**31)) for _ in range(validations)]
    scores = [val.right(np.random.default_rng(one)).mean() for one in seeds]
    new, old = test.right(random), test.right(random)  # equal quality, whichever was chosen
    return better(test, new, old, seed), float(max(scores) - np.mean(scores))


def any_of_fifty(seed: int, count: int, candidates: int = 50) -> bool:
    """Compare equal candidates one after the other with one champion on one set."""
    random = np.random.default_rng((seed, 50))
    images = draw_images(random, count)
    old = images.right(random)
    return any(better(images, images.right(random), old, seed, attempt) for attempt in range(1, candidates + 1))


def truly_better(seed: int, count: int, shift: float) -> bool:
    """Compare a candidate whose logits lie higher."""
    random = np.random.default_rng((seed, 3))
    images = draw_images(random, count)
    return better(images, images.right(random, shift), images.right(random), seed)


def refused(seed: int, count: int, shift: float, planted: int | None, groups: Callable[[int], np.ndarray]) -> bool:
    """Look for a loss in subgroups, as the gate does."""
    random = np.random.default_rng((seed, 7))
    images, parts = draw_images(random, count), groups(count)
    move = np.where(parts[images.owner] == planted, shift, 0.0)
    answers = [images.answers(images.right(random, moved)) for moved in (move, 0.0)]
    level = LOSSES / len(np.unique(parts))
    for pairs in zip(*(parts_of(images, parts, one) for one in answers), strict=True):
        new, old = (unit_scores(given, truths, range(len(truths)), TASK.score, [METRIC]) for given, truths in pairs)
        if find_loss("g", METRIC, new, old, 0.02, level=level, seed=seed, resamples=RESAMPLES).verdict == "worse":
            return True
    return False


def five_alike(count: int) -> np.ndarray:
    """Five groups of one size."""
    return np.arange(count) * 5 // count


def one_large(count: int) -> np.ndarray:
    """Half of the images in one group, the others in four."""
    groups = np.zeros(count, np.int64)
    groups[count // 2 :] = 1 + np.arange(count - count // 2) * 4 // (count - count // 2)
    return groups


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--images", type=int, default=40)
    asked = parser.parse_args()
    runs, count = asked.runs, asked.images
    print(f"champion {quality(0):.3f}; {count} images; {runs} runs", flush=True)
    for validations in (1, 8, 96):
        found = [chosen_elsewhere(seed, count, validations) for seed in range(runs)]
        passed, shown = np.mean([one[0] for one in found]), np.mean([one[1] for one in found])
        print(
            f"equal, best of {validations} validations on other images (there {shown:+.3f}): passes {passed:.1%}",
            flush=True,
        )
    few = max(runs // 10, 20)
    lucky = np.mean([any_of_fifty(seed, count) for seed in range(few)])
    print(f"any of 50 equal candidates on one set passes: {lucky:.1%} of {few}")
    for delta in (0.02, 0.05, 0.10):
        found_better = np.mean([truly_better(seed, count, shift_for(delta)) for seed in range(few)])
        print(f"truly {delta:+.2f}: passes {found_better:.1%} of {few}", flush=True)
    equal = np.mean([refused(seed, count, 0.0, None, five_alike) for seed in range(runs)])
    print(f"subgroups: of equal models refused {equal:.1%} (5 groups of {count // 5} images)", flush=True)
    for number in (40, 80):
        lost = np.mean([refused(seed, number, shift_for(-0.10), 0, one_large) for seed in range(few)])
        print(f"subgroups: -0.10 in a group of {number // 2} images refused in {lost:.1%} of {few}", flush=True)


if __name__ == "__main__":
    main()

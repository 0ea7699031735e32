"""Whether the gate's test holds its level, far out in the tail too: thousands of evaluation sets as counts. By hand.

    python tests/bench/gate_levels.py [--sets 2000] [--pairs 20000] [--kinds objects means classes]

Prints for 10 to 80 images how often one equal candidate passes at small levels, how often any of 50 equal candidates
on one set does, and how often candidates that are truly better pass at the first and at the tenth comparison; with
exact 95 % intervals.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from cytoray_services.promotion.resampling import MOST_RESAMPLES, compare_units, level_of
from cytoray_services.statistics.counts import UnitScores

sys.path.insert(0, str(Path(__file__).parents[1]))
from simulated_counts import KINDS, shift_for

CANDIDATES = 50
LEVELS = (1e-2, 1e-3, 4e-4, 1e-4)


def passes(candidate: UnitScores, champion: UnitScores, seed: int, level: float) -> bool:
    """Ask the gate; where a few draws leave no doubt that none passes, they are enough."""
    (metric,) = candidate.whole
    if candidate.whole[metric] <= champion.whole[metric]:
        return False
    for draws in (200, 5000):
        rough = compare_units(metric, candidate, champion, candidate.units, seed=seed, resamples=draws, level=0.5)
        if rough.probability - 5 * (rough.probability / draws) ** 0.5 > level:
            return False
    return compare_units(metric, candidate, champion, candidate.units, seed=seed, level=level).better


def each(kind: str, images: int, pairs: int) -> list[int]:
    """Return how many equal candidates pass at each of the levels, one on each set."""
    found = np.zeros(len(LEVELS), int)
    for seed in range(pairs):
        random = np.random.default_rng((seed, images, 1))
        old, new = KINDS[kind](random, images, np.zeros(2))
        for place, level in enumerate(LEVELS):  # what fails at one level fails at all below
            if not passes(new, old, seed, level):
                break
            found[place] += 1
    return found.tolist()


def any_of_fifty(kind: str, images: int, sets: int) -> int:
    """Return on how many sets any of 50 equal candidates passes, compared one after the other with one champion."""
    found = 0
    for seed in range(sets):
        random = np.random.default_rng((seed, images, 2))
        old, *candidates = KINDS[kind](random, images, np.zeros(1 + CANDIDATES))
        found += any(passes(new, old, seed, level_of(k)) for k, new in enumerate(candidates, start=1))
    return found


def truly_better(kind: str, images: int, delta: float, attempt: int, pairs: int) -> int:
    """Return how many candidates pass that are truly better."""
    shifts, found = np.array([0.0, shift_for(kind, delta)]), 0
    for seed in range(pairs):
        old, new = KINDS[kind](np.random.default_rng((seed, images, 3)), images, shifts)
        found += passes(new, old, seed, level_of(attempt))
    return found


def of(found: int, runs: int) -> str:
    """Return a share with its exact interval."""
    share = binomtest(found, runs).proportion_ci()
    return f"{found} of {runs} = {100 * found / runs:.3g} % ({100 * share.low:.2g} to {100 * share.high:.2g})"


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--better", type=int, default=400)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--images", nargs="+", type=int, default=[10, 20, 40, 80])
    asked = parser.parse_args()
    print(f"meant: any of {CANDIDATES} passes at most 5 %; no p lies below {1 / MOST_RESAMPLES:.0e}")
    for kind in asked.kinds:
        for images in asked.images:
            if asked.pairs:
                for level, found in zip(LEVELS, each(kind, images, asked.pairs), strict=True):
                    print(f"{kind}, {images} images: equal passes at {level:g}: {of(found, asked.pairs)}", flush=True)
            if asked.sets:
                found = any_of_fifty(kind, images, asked.sets)
                print(f"{kind}, {images} images: any of {CANDIDATES} equal passes: {of(found, asked.sets)}", flush=True)
            for delta in (0.02, 0.05, 0.10) if asked.better else ():
                for attempt in (1, 10):
                    found = truly_better(kind, images, delta, attempt, asked.better)
                    what = f"truly {delta:+.2f} passes in comparison {attempt}"
                    print(f"{kind}, {images} images: {what}: {of(found, asked.better)}", flush=True)


if __name__ == "__main__":
    main()

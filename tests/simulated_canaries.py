"""Canaries without a service: requests drawn at random, a fault planted where one is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random

import numpy as np

from cytoray_services.rollouts.canary_analysis import CanaryAnalysis, Outcome
from cytoray_services.rollouts.rollout import STEPS, Limits, Rollout, lane, takes

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
Draw = Callable[[Random], Outcome]
POPULATION = 20_000


def canary_of(limits: Limits | None = None, steps: tuple[float, ...] = STEPS) -> Rollout:
    return Rollout("key", "cells", "champion", "2", steps, "ada", BEGAN, BEGAN, beside="1", limits=limits or Limits())


def chosen(canary: Rollout, key: float) -> str | None:
    """Return the version that answers a request."""
    return canary.version if takes(canary, key) else canary.beside


@lru_cache
def requests(
    *,
    failures: float = 0.002,
    slower: float = 1.0,
    objects: float = 1.0,
    brighter: float = 0.0,
    stuck: float = 0.0,
) -> Draw:
    """Draw from requests to a service as it is: images of many sizes, few or many cells, times with a long tail.

    Parameters
    ----------
    failures, slower, objects, brighter, stuck
        Share that fails; how much slower; how many times the objects; by how many standard deviations brighter;
        share that takes ten times as long.
    """
    random = np.random.default_rng(0)
    megapixels = np.exp(random.normal(-0.5, 0.8, POPULATION))
    seconds = slower * (0.05 + 0.4 * megapixels) * np.exp(random.normal(0, 0.4, POPULATION))
    seconds[random.random(POPULATION) < stuck] *= 10
    density = objects * np.exp(random.normal(5, 0.5, POPULATION))
    summaries = {
        "objects_per_megapixel": density,
        "median_area": random.normal(400, 80, POPULATION),
        "covered": np.clip(density * 400 / 1e6, 0, 1),
        "mean_confidence": random.beta(20, 3, POPULATION),
        "mean_intensity": random.normal(100, 20, POPULATION) + 20 * brighter,
    }
    population = [
        Outcome(False, seconds[i], megapixels[i], {name: values[i] for name, values in summaries.items()})
        for i in range(POPULATION)
    ]
    failure = Outcome(True, 0.01, 1.0)
    return lambda random: failure if random.random() < failures else random.choice(population)


@dataclass(frozen=True)
class Ended:
    """How a simulated canary ended; `hours` after its start."""

    what: str
    reason: str
    step: int
    requests: int
    canary_requests: int
    hours: float


def simulate(
    draw: Draw,
    *,
    seed: int,
    canary: Rollout | None = None,
    per_second: float = 100.0,
    load: Sequence[float] = (),
    usual: Draw | None = None,
) -> Ended:
    """Lead a canary whose requests are drawn by `draw`, beside a version as usual.

    Parameters
    ----------
    load
        Step by step, how many times as long every answer takes, whichever version gives it.
    usual
        Requests to the other version.
    """
    random, usual = Random(seed), usual or requests()
    canary, now, asked, own = canary or canary_of(), BEGAN, 0, 0
    analysis, per_tick = CanaryAnalysis(canary), max(1, round(per_second))
    while True:
        for _ in range(per_tick):
            asked += 1
            key = random.random()
            version = chosen(canary, key)
            assert version is not None
            own += version == canary.version
            outcome = (draw if version == canary.version else usual)(random)
            seconds = outcome.seconds * (load[canary.step] if load else 1.0)
            analysis.observe(version, replace(outcome, seconds=seconds, timed=lane(canary, key) > 0))
        now += timedelta(seconds=per_tick / per_second)
        verdict = analysis.verdict(canary, now)
        if verdict.what == "advance":
            canary = replace(canary, step=canary.step + 1, began=now)
        elif verdict.what != "stay":
            return Ended(verdict.what, verdict.reason, canary.step, asked, own, (now - BEGAN).total_seconds() / 3600)

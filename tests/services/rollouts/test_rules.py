"""Each rule is sure that its limit is exceeded: at the limit a canary is accused as rarely as chance allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cytoray_services.rollouts.rollout import Limits
from cytoray_services.rollouts.rules import Rule, Sample, drift, more_failures, slow_too_often, slower

LEVEL, PAIRS, REQUESTS = 0.05, 200, 1_000
LIMITS = Limits()
Random = np.random.Generator
Pair = Callable[[Random, float], tuple[Sample, Sample]]
NOTHING = Sample((), np.empty(0), np.empty(0), np.empty(0, np.int64), {})


def failing(random: Random, excess: float, *, usual: float) -> tuple[Sample, Sample]:
    steps = ((REQUESTS // 2, 3 * REQUESTS), (REQUESTS, REQUESTS // 2))
    own = tuple((requests, int(random.binomial(requests, usual + excess))) for requests, _ in steps)
    others = tuple((requests, int(random.binomial(requests, usual))) for _, requests in steps)
    return replace(NOTHING, counts=own), replace(NOTHING, counts=others)


def taking(random: Random, times: float) -> tuple[Sample, Sample]:
    def sample(times: float) -> Sample:
        sizes, batches = random.lognormal(0, 0.5, REQUESTS), random.choice([1, 2, 4], REQUESTS)
        pace = times * random.lognormal(0, 0.5, REQUESTS) / batches
        return replace(NOTHING, pace=pace, sizes=sizes, batches=batches)

    return sample(times), sample(1.0)


def answering(random: Random, distance: float) -> tuple[Sample, Sample]:
    own, others = distance + random.random(REQUESTS), random.random(2 * REQUESTS)  # the distance of these is `distance`
    return replace(NOTHING, summaries={"covered": own}), replace(NOTHING, summaries={"covered": others})


RULES = [
    pytest.param(more_failures, lambda r, x: failing(r, x, usual=0.002), LIMITS.failures, 0.03, id="errors"),
    pytest.param(more_failures, lambda r, x: failing(r, x, usual=0.3), LIMITS.failures, 0.12, id="errors, many"),
    pytest.param(slower, taking, LIMITS.slower, 1.6, id="slower"),
    pytest.param(slow_too_often, taking, LIMITS.slowest, 2.2, id="slowest"),
    pytest.param(drift, answering, LIMITS.drift, LIMITS.drift + 0.1, id="drift"),
]


def found(rule: Rule, pair: Pair, effect: float) -> int:
    return sum(rule(*pair(np.random.default_rng(seed), effect), LIMITS, LEVEL) is not None for seed in range(PAIRS))


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "pair", "limit", "beyond"), RULES)
def test_what_is_as_far_off_as_is_allowed_is_found_as_rarely_as_chance_allows(
    rule: Rule, pair: Pair, limit: float, beyond: float
) -> None:
    # At exactly the level, 200 pairs give more than 19 once in 300 times.
    assert found(rule, pair, limit) <= 19
    assert found(rule, pair, beyond) >= 0.95 * PAIRS

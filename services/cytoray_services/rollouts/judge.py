"""Whether a canary goes on: it looks at the outcomes of requests now and then, and says what to do."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np

from cytoray_services.rollouts.rollout import Canary, share
from cytoray_services.rollouts.rules import FEWEST, RULES, RULES_ALONE, Sample

# Of a hundred canaries that are no worse, one is withdrawn at most.
FALSE_ALARMS = 0.01
LARGEST_SAMPLE = 2_000
GROWTH_BETWEEN_LOOKS = 1.5
# Smaller images take a fixed time rather than one that goes with their size.
SMALLEST_SIZE = 0.1  # megapixels


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    Attributes
    ----------
    failed
        By the service's fault: a status of 500 and above. Requests that the caller got wrong do not count at all.
    seconds
        From the request to the answer.
    megapixels
        Size of the image.
    summary
        Numbers that describe the answer, by name; empty when it failed.
    """

    failed: bool
    seconds: float
    megapixels: float
    summary: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What to do with a canary, and why where it is to be withdrawn."""

    what: Literal["stay", "advance", "withdraw", "finish"]
    reason: str = ""


STAY = Verdict("stay")


class Reservoir:
    """Outcomes of one version: all counted, of those that did not fail a sample without preference kept.

    Algorithm R (Vitter, Random Sampling with a Reservoir, ACM TOMS 11, 37 (1985)).
    """

    def __init__(self, seed: int = 0) -> None:
        self.requests = self.failures = 0
        self._kept: list[Outcome] = []
        self._random = random.Random(seed)  # noqa: S311 - a sample, no secret

    def add(self, outcome: Outcome) -> None:
        """Count an outcome, and perhaps keep it."""
        self.requests += 1
        if outcome.failed:
            self.failures += 1
        elif len(self._kept) < LARGEST_SAMPLE:
            self._kept.append(outcome)
        else:
            place = self._random.randrange(self.requests - self.failures)
            if place < LARGEST_SAMPLE:
                self._kept[place] = outcome

    @property
    def counts(self) -> tuple[int, int]:
        """How many there were, and how many failed."""
        return self.requests, self.failures

    def sample(self, before: Sequence[tuple[int, int]] = ()) -> Sample:
        """Return what is known, as arrays; `before` are the counts of earlier steps."""
        kept = self._kept
        names = {name for one in kept for name in one.summary}
        return Sample(
            (*before, self.counts),
            np.array([one.seconds / max(one.megapixels, SMALLEST_SIZE) for one in kept]),
            {name: np.array([one.summary.get(name, math.nan) for one in kept]) for name in names},
        )


class Judge:
    """Watches one canary, step by step.

    Within a step both versions see samples of the same stream, so that each step is judged by what it saw itself;
    failures, which are few, are counted over all steps, each beside its own. In a step that leaves the other version
    nothing, errors and latency are judged beside what that did in the step before, and drift is not.

    It looks at the data at growing intervals: with 20 requests of the canary, 30, 45 and so on, and when a step is
    complete. Every look may raise a false alarm, so each has its part of the step's share of :data:`FALSE_ALARMS`, the
    k-th 1 / (k (k + 1)) of it, split evenly over the rules (Bonferroni; spending the error over looks: Lan & DeMets,
    Biometrika 70, 659 (1983)).

    Parameters
    ----------
    canary
        The canary, as it is when the watch begins.
    """

    def __init__(self, canary: Canary) -> None:
        self._canary = canary
        self._before: list[tuple[Reservoir, Reservoir]] = []
        self._begin()

    def _begin(self) -> None:
        self._own, self._other = Reservoir(), Reservoir()
        self._looks, self._next_look = 0, FEWEST
        self._decided: Verdict | None = None

    def observe(self, version: str, outcome: Outcome) -> None:
        """Take note of a request that one of the two versions answered; others are none of its business."""
        if version == self._canary.version:
            self._own.add(outcome)
        elif version == self._canary.beside:
            self._other.add(outcome)

    def verdict(self, canary: Canary, now: datetime) -> Verdict:
        """Say what to do.

        Parameters
        ----------
        canary
            As the registry has it now; what was decided stays decided until its step changes there.
        """
        if canary.step != self._canary.step:
            self._before.append((self._own, self._other))
            self._canary = canary
            self._begin()
        if self._decided is None:
            self._decided = self._judged(now)
        return self._decided or STAY

    def measured(self) -> dict[str, float]:
        """Return what this step saw so far, for people to look at."""
        found: dict[str, float] = {}
        for who, reservoir in (("canary", self._own), ("other", self._other)):
            found |= {f"{who}_requests": reservoir.requests, f"{who}_failures": reservoir.failures}
            pace = reservoir.sample().pace
            if len(pace):
                found[f"{who}_seconds_per_megapixel"] = float(np.median(pace))
        return found

    def _judged(self, now: datetime) -> Verdict | None:
        canary, limits, seen = self._canary, self._canary.limits, self._own.requests
        elapsed = (now - canary.began).total_seconds()
        complete = elapsed >= limits.seconds_per_step and seen >= limits.least_requests
        if not complete and seen < self._next_look:
            return None
        fault = self._look()
        if fault is not None:
            return Verdict("withdraw", fault)
        if complete:
            return Verdict("advance" if canary.step + 1 < len(canary.steps) else "finish")
        return None

    def _look(self) -> str | None:
        self._looks += 1
        while self._next_look <= self._own.requests:
            self._next_look = math.ceil(self._next_look * GROWTH_BETWEEN_LOOKS)
        alone = share(self._canary) >= 1
        rules = RULES_ALONE if alone else RULES
        own = self._own.sample([own.counts for own, _ in self._before])
        other = self._beside(alone)
        level = FALSE_ALARMS / len(self._canary.steps) / (self._looks * (self._looks + 1)) / len(rules)
        return next(filter(None, (rule(own, other, self._canary.limits, level) for rule in rules)), None)

    def _beside(self, alone: bool) -> Sample:
        """Return what the canary is compared with; a step alone is compared with the step before it."""
        others = [other for _, other in self._before]
        current = others[-1] if alone and others else self._other
        return current.sample([other.counts for other in others])

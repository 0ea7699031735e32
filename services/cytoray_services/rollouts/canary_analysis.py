"""Whether a canary goes on: it looks at the outcomes of requests now and then, and says what to do."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cytoray_services.rollouts.duration import hours_left
from cytoray_services.rollouts.rollout import Rollout
from cytoray_services.rollouts.rules import FEWEST, RULES, Sample

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
        What the version took for it, without waiting.
    megapixels
        Size of the image.
    summary
        Numbers that describe the answer, by name; empty when it failed.
    timed
        Whether its time is compared: it was in a :func:`~cytoray_services.rollouts.rollout.lane` apart from the rest,
        and speaks for its pass of the network.
    batch
        Images that went through the network together.
    """

    failed: bool
    seconds: float
    megapixels: float
    summary: dict[str, float] = field(default_factory=dict)
    timed: bool = True
    batch: int = 1


@dataclass(frozen=True)
class Verdict:
    """What to do with a canary, and why where it is to be withdrawn."""

    what: Literal["stay", "advance", "withdraw", "finish"]
    reason: str = ""


STAY = Verdict("stay")


class Reservoir:
    """A sample of outcomes, without preference.

    Algorithm R (Vitter, Random Sampling with a Reservoir, ACM TOMS 11, 37 (1985)).
    """

    def __init__(self) -> None:
        self.kept: list[Outcome] = []
        self._seen = 0
        self._random = random.Random(0)  # noqa: S311 - a sample, no secret

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome, perhaps."""
        self._seen += 1
        if len(self.kept) < LARGEST_SAMPLE:
            self.kept.append(outcome)
        else:
            place = self._random.randrange(self._seen)
            if place < LARGEST_SAMPLE:
                self.kept[place] = outcome


class Seen:
    """What one version did in one step: all requests counted, of those that did not fail samples kept."""

    def __init__(self) -> None:
        self.requests = self.failures = 0
        self._answered, self._timed = Reservoir(), Reservoir()

    def add(self, outcome: Outcome) -> None:
        """Take note of an outcome."""
        self.requests += 1
        if outcome.failed:
            self.failures += 1
            return
        self._answered.add(outcome)
        if outcome.timed:
            self._timed.add(outcome)

    @property
    def counts(self) -> tuple[int, int]:
        """How many there were, and how many failed."""
        return self.requests, self.failures

    @property
    def pace(self) -> NDArray[np.float64]:
        """Seconds per megapixel of those whose time is compared."""
        return np.array([one.seconds / max(one.megapixels, SMALLEST_SIZE) for one in self._timed.kept])

    def sample(self, before: Sequence[tuple[int, int]] = ()) -> Sample:
        """Return what is known, as arrays; `before` are the counts of earlier steps."""
        answered = self._answered.kept
        names = {name for one in answered for name in one.summary}
        return Sample(
            (*before, self.counts),
            self.pace,
            np.array([max(one.megapixels, SMALLEST_SIZE) for one in self._timed.kept]),
            np.array([one.batch for one in self._timed.kept], np.int64),
            {name: np.array([one.summary.get(name, math.nan) for one in answered]) for name in names},
        )


class CanaryAnalysis:
    """Watches one canary, step by step.

    In every step both versions see samples of the same stream, so that each step is judged by what it saw itself;
    failures, which are few, are counted over all steps, each beside its own.

    It looks at the data at growing intervals: with 20 requests of the canary, 30, 45 and so on, and when a step is
    complete. Every look may raise a false alarm, so each has its part of the step's share of :data:`FALSE_ALARMS`, the
    k-th 1 / (k (k + 1)) of it, split evenly over the rules (Bonferroni; spending the error over looks: Lan & DeMets,
    Biometrika 70, 659 (1983)).

    Parameters
    ----------
    canary
        The canary, as it is when the watch begins.
    """

    def __init__(self, canary: Rollout) -> None:
        self._canary = canary
        self._before: list[tuple[Seen, Seen]] = []
        self._begin()

    def _begin(self) -> None:
        self._own, self._other = Seen(), Seen()
        self._since: datetime | None = None
        self._looks, self._next_look = 0, FEWEST
        self._decided: Verdict | None = None

    def observe(self, version: str, outcome: Outcome) -> None:
        """Take note of a request that one of the two versions answered; others are none of its business."""
        if version == self._canary.version:
            self._own.add(outcome)
        elif version == self._canary.beside:
            self._other.add(outcome)

    def verdict(self, canary: Rollout, now: datetime) -> Verdict:
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
        self._since = self._since or now
        if self._decided is None:
            self._decided = self._judged(now)
        return self._decided or STAY

    def measured(self, now: datetime) -> dict[str, float]:
        """Return what this step saw so far, and how long it will be until the end, for people to look at."""
        found: dict[str, float] = {}
        for who, seen in (("canary", self._own), ("other", self._other)):
            found |= {f"{who}_requests": seen.requests, f"{who}_failures": seen.failures}
            pace = seen.pace
            if len(pace):
                found[f"{who}_seconds_per_megapixel"] = float(np.median(pace))
        hours = (now - (self._since or now)).total_seconds() / 3600
        requests = self._own.requests + self._other.requests
        if hours and requests >= FEWEST:
            elapsed = (now - self._canary.began).total_seconds() / 3600
            answered = (self._own.requests, self._other.requests)
            left = hours_left(self._canary, requests / hours, elapsed=elapsed, answered=answered)
            found |= {"requests_per_hour": requests / hours, "hours_left": left}
        return found

    def _judged(self, now: datetime) -> Verdict | None:
        canary, limits, seen = self._canary, self._canary.limits, self._own.requests
        elapsed = (now - canary.began).total_seconds()
        compared = seen >= limits.least_requests and self._other.requests >= FEWEST
        complete = elapsed >= limits.seconds_per_step and compared
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
        own = self._own.sample([own.counts for own, _ in self._before])
        other = self._other.sample([other.counts for _, other in self._before])
        level = FALSE_ALARMS / len(self._canary.steps) / (self._looks * (self._looks + 1)) / len(RULES)
        return next(filter(None, (rule(own, other, self._canary.limits, level) for rule in RULES)), None)

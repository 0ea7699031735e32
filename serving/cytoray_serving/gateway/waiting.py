"""Limits of the queue at one gateway: requests and megapixels of each model, caller and team."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cytoray_analysis.errors import OverloadedError
from cytoray_services.tokens.access import Caller
from cytoray_serving.gateway.teams import TeamConfig
from cytoray_serving.service.config import RequestLimits

_LONGEST_RETRY = 60  # seconds
_MODEL = "for"  # kind of the holders that are models, in messages
_MEMORY_SECONDS = 30.0  # over which the rate of answers is averaged


class Waiting:
    """Counts running and queued requests, and refuses requests above the limits.

    Parameters
    ----------
    limits
        The limits. A single request is always accepted.
    teams
        Limits of teams.
    """

    def __init__(self, limits: RequestLimits, teams: Mapping[str, TeamConfig] | None = None) -> None:
        self._limits = limits
        self._teams = teams or {}
        self._requests: dict[tuple[str, str], int] = defaultdict(int)
        self._megapixels: dict[tuple[str, str], float] = defaultdict(float)
        self._rates: dict[str, float] = {}
        self._answered: dict[str, float] = {}

    def megapixels(self, model: str) -> float:
        """Return the running and queued megapixels of a model."""
        return self._megapixels.get((_MODEL, model), 0.0)

    @contextmanager
    def request(self, model: str, megapixels: float, caller: Caller | None = None) -> Iterator[None]:
        """Count one request while it runs.

        Parameters
        ----------
        caller
            The caller; the scope administer, and None, have no limits per caller.

        Raises
        ------
        OverloadedError
            The queue is full.
        """
        holders: list[tuple[str, str, int, float | None]] = [
            (_MODEL, model, self._limits.waiting_requests, self._limits.waiting_megapixels)
        ]
        if caller is not None and not caller.administers:
            # By the name of the token, which does not change with its secret.
            share = self._limits.caller_share
            most = max(1, int(share * self._limits.waiting_requests)), share * self._limits.waiting_megapixels
            holders.append(("for the caller", caller.name, *most))
            holders += [("for the team", team, waiting, None) for team, waiting in self._limited_teams(caller)]
        for kind, name, requests, size in holders:
            self._require(model, (kind, name), requests, size, megapixels)
        held = [(kind, name) for kind, name, _, _ in holders]
        for holder in held:
            self._requests[holder] += 1
            self._megapixels[holder] += megapixels
        try:
            yield
        finally:
            for holder in held:
                self._let_go(holder, megapixels)

    def _limited_teams(self, caller: Caller) -> list[tuple[str, int]]:
        found = [(team, self._teams[team].waiting) for team in sorted(caller.teams) if team in self._teams]
        return [(team, most) for team, most in found if most is not None]

    def _require(self, model: str, holder: tuple[str, str], most: int, size: float | None, megapixels: float) -> None:
        requests, waiting = self._requests.get(holder, 0), self._megapixels.get(holder, 0.0)
        if requests < most and not (size is not None and requests and waiting + megapixels > size):
            return
        limit, got = f"{most} requests", f"{requests + 1}"
        if size is not None:
            limit, got = f"{limit} and {size:g} megapixels", f"{got} and {waiting + megapixels:.0f}"
        error = OverloadedError(
            f"expected at most {limit} in the queue {' '.join(holder)}, got {got}",
            field="model" if holder[0] == _MODEL else "caller",
            hint="send the request again after the seconds in Retry-After",
        )
        error.retry_after = self.retry_after(model)
        raise error

    def _let_go(self, holder: tuple[str, str], megapixels: float) -> None:
        self._requests[holder] -= 1
        self._megapixels[holder] -= megapixels
        if not self._requests[holder]:
            del self._requests[holder], self._megapixels[holder]  # removes rounding errors and unused names

    def answered(self, model: str, megapixels: float) -> None:
        """Update the rate of answers of a model."""
        now = time.monotonic()
        before = self._answered.get(model)
        self._answered[model] = now
        if before is None or now <= before:
            return
        share = math.exp(-(now - before) / _MEMORY_SECONDS)
        self._rates[model] = share * self._rates.get(model, 0.0) + (1 - share) * megapixels / (now - before)

    def retry_after(self, model: str) -> int:
        """Return the seconds, as a whole number, until half of the queue of a model is answered."""
        rate = self._rates.get(model, 0.0)
        seconds = self.megapixels(model) / rate / 2 if rate > 0 else 1.0
        return max(1, min(_LONGEST_RETRY, math.ceil(seconds)))

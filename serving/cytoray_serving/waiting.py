"""How much may wait: requests and megapixels of each model, at one gateway."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from cytoray_analysis.errors import OverloadedError
from cytoray_serving.service_config import RequestLimits

_LONGEST_RETRY = 60  # seconds
_MEMORY_SECONDS = 30.0  # over which the rate of answers is averaged


class Waiting:
    """Counts what is being answered, and refuses what is too much.

    Parameters
    ----------
    limits
        What may wait. One request alone is always taken, however large it is.
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._requests: dict[str, int] = defaultdict(int)
        self._megapixels: dict[str, float] = defaultdict(float)
        self._rates: dict[str, float] = {}
        self._answered: dict[str, float] = {}

    def megapixels(self, model: str) -> float:
        """Return the megapixels of a model that are being answered or wait."""
        return self._megapixels[model]

    @contextmanager
    def request(self, model: str, megapixels: float) -> Iterator[None]:
        """Hold the place of one request while it is being answered.

        Raises
        ------
        OverloadedError
            As much waits as may.
        """
        requests, waiting = self._requests[model], self._megapixels[model]
        most = self._limits
        if requests >= most.waiting_requests or (requests and waiting + megapixels > most.waiting_megapixels):
            error = OverloadedError(
                f"expected at most {most.waiting_requests} requests and {most.waiting_megapixels:g} megapixels "
                f"to wait for {model}, got {requests + 1} and {waiting + megapixels:.0f}",
                field="model",
                hint="send the same request again after the seconds in Retry-After",
            )
            error.retry_after = self.retry_after(model)
            raise error
        self._requests[model] += 1
        self._megapixels[model] += megapixels
        try:
            yield
        finally:
            self._requests[model] -= 1
            self._megapixels[model] -= megapixels
            if not self._requests[model]:
                self._megapixels[model] = 0.0  # no rounding is carried on

    def answered(self, model: str, megapixels: float) -> None:
        """Learn how fast a model answers."""
        now = time.monotonic()
        before = self._answered.get(model)
        self._answered[model] = now
        if before is None or now <= before:
            return
        share = math.exp(-(now - before) / _MEMORY_SECONDS)
        self._rates[model] = share * self._rates.get(model, 0.0) + (1 - share) * megapixels / (now - before)

    def retry_after(self, model: str) -> int:
        """Return the whole seconds in which half of what waits for a model will have been answered."""
        rate = self._rates.get(model, 0.0)
        seconds = self._megapixels[model] / rate / 2 if rate > 0 else 1.0
        return max(1, min(_LONGEST_RETRY, math.ceil(seconds)))

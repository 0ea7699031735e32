"""How long a canary takes until it is decided, at so many requests an hour."""

from __future__ import annotations

from collections.abc import Sequence

from cytoray_services.rollouts.rollout import Rollout, shares
from cytoray_services.rollouts.rules import FEWEST


def requests_of_steps(canary: Rollout) -> tuple[float, ...]:
    """Return how many requests to the alias each step takes, of whichever version.

    Until the canary has answered :attr:`Limits.least_requests` and the other version enough to be compared with.
    """
    return tuple(_requests(share, (canary.limits.least_requests, FEWEST)) for share in shares(canary))


def hours_left(canary: Rollout, per_hour: float, *, elapsed: float = 0.0, answered: tuple[int, int] = (0, 0)) -> float:
    """Return the hours until the canary has gone through its steps, if nothing speaks against it.

    Parameters
    ----------
    per_hour
        Requests to the alias an hour, above 0.
    elapsed
        Hours since its present step began.
    answered
        Requests that the canary and the other version answered in that step.
    """
    needed = list(requests_of_steps(canary)[canary.step :])
    wanted = (canary.limits.least_requests - answered[0], FEWEST - answered[1])
    needed[0] = _requests(shares(canary)[canary.step], wanted)
    least = canary.limits.seconds_per_step / 3600
    hours = [max(requests / per_hour, least) for requests in needed]
    hours[0] = max(needed[0] / per_hour, least - elapsed)
    return sum(hours)


def _requests(share: float, wanted: Sequence[int]) -> float:
    own, others = wanted
    return max(own / share, others / (1 - share), 0.0)

"""How much of a service one caller, or one team, takes at a time."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from cytoray_analysis.errors import OverloadedError
from cytoray_services.tokens.access import Caller
from cytoray_serving.gateway.teams import TeamConfig
from cytoray_serving.gateway.waiting import Waiting
from cytoray_serving.service.config import RequestLimits

ADA, BOB = Caller("ada", ("predict",), "lab", "0"), Caller("bob", ("predict",), "lab", "1")
EVE, CHIEF = Caller("eve", ("predict",), None, "2"), Caller("chief", ("administer",), None, "3")


def taken(waiting: Waiting, stack: ExitStack, caller: Caller | None, tries: int, model: str = "cells") -> int:
    for number in range(tries):
        try:
            stack.enter_context(waiting.request(model, 1.0, caller))
        except OverloadedError:
            return number
    return tries


def test_one_caller_takes_no_whole_queue_with_any_secret_and_model() -> None:
    waiting = Waiting(RequestLimits(waiting_requests=8))
    with ExitStack() as stack:
        assert taken(waiting, stack, ADA, 4) == 4
        assert taken(waiting, stack, Caller("ada", ("predict",), "lab", "new"), 8, "nuclei") == 2
        with pytest.raises(
            OverloadedError, match="at most 6 requests and 768 megapixels in the queue for the caller ada"
        ):
            stack.enter_context(waiting.request("stain", 1.0, ADA))
        assert taken(waiting, stack, EVE, 8) == 4
        assert taken(waiting, stack, CHIEF, 8, "stain") == 8  # who administers has the limit of the model alone
    assert taken(waiting, ExitStack(), ADA, 8) == 6  # all is given back


def test_one_caller_takes_no_whole_queue_with_large_images() -> None:
    waiting = Waiting(RequestLimits(waiting_megapixels=100))
    with (
        waiting.request("cells", 200, ADA),  # one alone is always taken
        pytest.raises(OverloadedError, match="got 2 and 201"),
        waiting.request("nuclei", 1, ADA),
    ):
        pass
    with waiting.request("cells", 70, ADA):
        with pytest.raises(OverloadedError, match="75 megapixels in the queue for the caller ada"):
            waiting.request("cells", 10, ADA).__enter__()
        with waiting.request("cells", 10, EVE):
            assert waiting.megapixels("cells") == 80
    assert waiting.megapixels("cells") == 0


def test_a_team_has_a_limit_of_its_own() -> None:
    waiting = Waiting(RequestLimits(), {"lab": TeamConfig(waiting=3)})
    with ExitStack() as stack:
        assert taken(waiting, stack, ADA, 2) == 2
        assert taken(waiting, stack, BOB, 2) == 1
        with pytest.raises(OverloadedError, match="at most 3 requests in the queue for the team lab") as caught:
            stack.enter_context(waiting.request("cells", 1.0, BOB))
        assert caught.value.retry_after >= 1
        assert taken(waiting, stack, EVE, 8) == 8


def test_a_share_of_one_is_the_whole_queue() -> None:
    waiting = Waiting(RequestLimits(waiting_requests=4, caller_share=1))
    assert taken(waiting, ExitStack(), ADA, 8) == 4

"""The controller leads canaries by what it hears, through the registry and without it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from cytoray_services.free_ports import free_port
from cytoray_services.registry import Registry
from cytoray_services.rollouts.canary_analysis import Outcome
from cytoray_services.rollouts.changes import start_rollout
from cytoray_services.rollouts.controller import Compared, Counted, Observed, RolloutController
from cytoray_services.rollouts.rollout import Limits, read_routing
from simulated_canaries import Draw, requests

LIMITS = Limits(seconds_per_step=10, least_requests=40)


class Service:
    """A hundred requests a second, routed as a gateway does, by a clock of its own."""

    def __init__(self, registry: Registry, draw: Draw) -> None:
        self.registry, self.draw = registry, draw
        self.controller = RolloutController(registry, ["cells"])
        self.now = datetime.now(UTC)
        self.random = Random(0)
        self.versions: list[str | None] = []

    def second(self) -> None:
        routing = read_routing(Registry.open(self.registry.settings), "cells")
        seen = []
        for _ in range(100):
            version = routing.version(None, self.random.random())
            assert version is not None
            self.versions.append(version)
            draw = self.draw if version == "2" else requests()
            seen.append(Observed("cells", version, draw(self.random)))
        self.controller.observe(pickle.loads(pickle.dumps(seen)))
        self.now += timedelta(seconds=1)
        self.controller.step(self.now)


@contextmanager
def away(registry: Registry) -> Iterator[None]:
    """Let MLflow be away for a while."""
    connection = registry._connection
    connection.uri, address = f"http://127.0.0.1:{free_port()}", connection.uri
    yield
    connection.uri = address


@pytest.mark.slow
def test_a_good_canary_goes_through_its_steps_and_becomes_the_champion(registry: Registry) -> None:
    start_rollout(registry, "cells", "2", steps=(0.2, 1.0), limits=LIMITS)
    service = Service(registry, requests())
    for _ in range(26):
        service.second()
    routing = read_routing(registry, "cells")
    (canary,) = routing.past
    assert (canary.state, canary.why) == ("promoted", "nothing spoke against it")
    assert routing.aliases["champion"] == "2"
    move = registry.history("cells")[-1]
    assert (move.before, move.after, move.reason) == ("1", "2", "canary at 20%, 90% of the requests")
    assert set(service.versions[-100:]) == {"2"}
    assert canary.measured["canary_failures"] <= canary.measured["canary_requests"]


@pytest.mark.slow
def test_a_bad_canary_is_withdrawn_and_the_alias_stays(registry: Registry) -> None:
    start_rollout(registry, "cells", "2", steps=(0.2, 1.0), limits=LIMITS)
    service = Service(registry, requests(failures=0.5))
    for _ in range(6):
        service.second()
    (canary,) = read_routing(registry, "cells").past
    assert canary.state == "withdrawn"
    assert canary.why.startswith("errors: ")
    assert registry.resolve("cells@champion").version == "1"
    assert set(service.versions[-100:]) == {"1"}


@pytest.mark.slow
def test_while_the_registry_is_away_nothing_is_lost_and_then_it_is_done(registry: Registry) -> None:
    start_rollout(registry, "cells", "2", limits=LIMITS)
    controller, now = RolloutController(registry, ["cells"]), datetime.now(UTC)
    controller.step(now)
    with away(registry):
        for _ in range(30):
            outcomes = {"2": Outcome(True, 0.1, 1.0), "1": Outcome(False, 0.1, 1.0)}
            controller.observe(Observed("cells", version, outcome) for version, outcome in outcomes.items())
        assert controller.step(now) == ()
    (withdrawn,) = controller.step(now)
    assert withdrawn.state == "withdrawn"
    assert controller.step(now) == ()


def test_a_controller_that_died_after_moving_the_alias_is_completed_by_the_next(registry: Registry) -> None:
    start_rollout(registry, "cells", "2", limits=LIMITS)
    registry.promote("cells", "2", reason="canary …")
    (canary,) = RolloutController(registry, ["cells"]).step(datetime.now(UTC))
    assert (canary.state, canary.why) == ("promoted", "the alias has moved to it")


def test_a_canary_is_stopped_when_someone_moves_the_alias_elsewhere(registry: Registry) -> None:
    start_rollout(registry, "cells", "2", limits=LIMITS)
    registry.promote("cells", "3")
    (canary,) = RolloutController(registry, ["cells"]).step(datetime.now(UTC))
    assert (canary.state, canary.why) == ("stopped", "cells@champion was moved to 3 meanwhile")


def test_what_shadows_answer_is_summed_up_across_outages_and_restarts(registry: Registry) -> None:
    start_rollout(registry, "cells", "2", answers=False, steps=(0.1,))
    controller, now = RolloutController(registry), datetime.now(UTC)
    controller.observe([Compared("cells", "2", {"ap50": 1.0}), Compared("cells", "2", {"ap50": 0.5})])
    with away(registry):
        controller.step(now)
    controller.step(now)
    other, later = RolloutController(registry), now + timedelta(minutes=1)
    other.observe([Compared("cells", "2", {"ap50": 0.0})])
    other.step(later)
    (shadow,) = read_routing(registry, "cells").running
    measured = shadow.measured
    assert measured == {"requests": 3, "ap50": pytest.approx(0.5)}


@pytest.mark.slow
def test_requests_to_an_alias_are_counted_for_whoever_starts_a_canary(registry: Registry) -> None:
    now = datetime.now(UTC)
    for _ in range(2):  # a service that starts again goes on from the mean that is written down
        controller = RolloutController(registry, ["cells"])
        controller.step(now)
        for _ in range(14):
            now += timedelta(hours=1)
            controller.observe([Counted("cells", "champion", 100), Counted("cells", "gone", 7)])
            controller.step(now)
    traffic = read_routing(registry, "cells").traffic
    assert traffic.keys() == {"champion"}
    assert traffic["champion"].per_hour == pytest.approx(100)
    assert traffic["champion"].hours == pytest.approx(24)
    controller.step(now + timedelta(days=2))
    assert read_routing(registry, "cells").traffic["champion"].per_hour == 0


def test_one_model_that_is_gone_does_not_keep_the_others_from_being_led(registry: Registry) -> None:
    start_rollout(registry, "cells", "2", limits=LIMITS)
    registry.promote("cells", "2")
    (canary,) = RolloutController(registry, ["a-model-that-is-gone", "cells"]).step(datetime.now(UTC))
    assert canary.state == "promoted"

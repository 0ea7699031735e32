"""Canaries and shadows in the registry, and where a request goes."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import ModelNotFoundError, RequestError
from cytoray_services.registry import Registry
from cytoray_services.rollouts.changes import (
    advance_canary,
    end_canary,
    start_canary,
    start_shadow,
    stop_canary,
    stop_shadow,
)
from cytoray_services.rollouts.rollout import Limits, chosen, lane, measured_note, read_routing, share
from simulated_canaries import canary_of


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 2))
def test_who_once_has_the_canary_keeps_it_as_its_share_grows(key: float, step: int) -> None:
    canary = replace(canary_of(), step=step)
    assert chosen(canary, key) == ("2" if key < (0.05, 0.25, 0.9)[step] else "1")
    if step and chosen(replace(canary, step=step - 1), key) == "2":
        assert chosen(canary, key) == "2"


@pytest.mark.parametrize("step", [0.01, 0.05, 0.25, 0.5, 0.9, 1.0])
def test_lanes_whose_times_are_compared_are_of_one_size(step: float) -> None:
    canary = canary_of(steps=(step,))
    keys = (np.arange(100_000) + 0.5) / 100_000
    lanes = Counter((chosen(canary, key), lane(canary, key)) for key in keys)
    apart = {asked: requests for asked, requests in lanes.items() if asked[1]}
    smaller = min(step, 1 - step) if step < 1 else 0.1
    assert {version for version, _ in apart} == {"1", "2"}
    assert max(abs(requests / len(keys) - smaller) for requests in apart.values()) < 1e-4
    assert sum(version == "2" for version, _ in apart) == 1
    assert sum(apart.values()) / len(keys) <= max(0.2, 2 * smaller) + 1e-9


def test_an_ended_canary_gets_nothing() -> None:
    withdrawn = replace(canary_of(), state="withdrawn")
    assert share(withdrawn) == 0
    assert chosen(withdrawn, 0.0) == "1"


def test_a_canary_is_kept_in_the_registry_and_routes_requests(registry: Registry) -> None:
    limits = Limits(seconds_per_step=5, drift=0.4)
    canary = start_canary(registry, "cells", "2", steps=(0.2, 1.0), limits=limits, reason="finds dim cells")
    routing = read_routing(Registry.open(registry.settings), "cells")
    assert routing.canaries == {"champion": canary}
    assert routing.aliases == {"champion": "1"}
    assert sorted(routing.digests) == ["1", "2", "3"]
    assert routing.digests["2"] == registry.resolve("cells/2").digest
    for alias in (None, "champion"):
        assert [routing.version(alias, key) for key in (0.0, 0.19, 0.2, 0.9)] == ["2", "2", "1", "1"]
    assert routing.version("candidate", 0.0) is None
    assert (canary.beside, canary.limits, canary.reason) == ("1", limits, "finds dim cells")


def test_moving_the_alias_by_hand_overrules_the_canary_at_once(registry: Registry) -> None:
    start_canary(registry, "cells", "2")
    registry.promote("cells", "3")
    assert read_routing(registry, "cells").version(None, 0.0) == "3"


def test_a_model_without_aliases_answers_with_its_newest_version(registry: Registry) -> None:
    routing = replace(read_routing(registry, "cells"), aliases={}, digests={"9": "", "10": ""})
    assert routing.version(None, 0.0) == "10"
    assert routing.mirror(None, 0.0) is None


def test_what_was_ended_stays_to_be_seen(registry: Registry) -> None:
    first = start_canary(registry, "cells", "2")
    advanced = advance_canary(registry, first, datetime.now(UTC))
    assert advanced is not None
    assert end_canary(registry, advanced, "withdrawn", "errors: 7%") is not None
    start_shadow(registry, "cells", "2", share=0.5)
    stop_shadow(registry, "cells", reason="seen enough")
    start_canary(registry, "cells", "3")
    stop_canary(registry, "cells", reason="lunch")
    routing = read_routing(registry, "cells")
    assert routing.canaries == {}
    assert routing.shadows == {}
    assert [(one.version, one.state, one.why) for one in routing.past] == [
        ("2", "withdrawn", "errors: 7%"),
        ("2", "stopped", "seen enough"),
        ("3", "stopped", "lunch"),
    ]
    assert all(one.by and one.ended for one in routing.past)
    assert registry.resolve("cells@champion").version == "1"


def test_what_cannot_be_started_is_refused_with_what_to_do(registry: Registry) -> None:
    with pytest.raises(RequestError, match="cells@champion has version 1 already"):
        start_canary(registry, "cells", "1")
    with pytest.raises(ModelNotFoundError, match="no version 9; there are: 3, 2, 1"):
        start_canary(registry, "cells", "9")
    with pytest.raises(ModelNotFoundError, match="no alias 'candidate'"):
        start_canary(registry, "cells", "2", alias="candidate")
    with pytest.raises(ModelNotFoundError, match="there is no model 'nuclei'"):
        start_canary(registry, "nuclei", "2")
    for steps in ((), (0.0, 1.0), (0.5, 0.25), (0.5, 2.0), (0.95, 1.0)):
        with pytest.raises(RequestError, match="growing shares"):
            start_canary(registry, "cells", "2", steps=steps)
    with pytest.raises(RequestError, match="expected a share"):
        start_shadow(registry, "cells", "2", share=0.0)
    with pytest.raises(RequestError, match="no canary stands beside cells@champion"):
        stop_canary(registry, "cells")
    with pytest.raises(RequestError, match="no shadow stands beside"):
        stop_shadow(registry, "cells")
    assert read_routing(registry, "cells").past == ()


def test_of_several_who_start_a_canary_at_once_one_does(registry: Registry) -> None:
    def start(version: str) -> str:
        try:
            return start_canary(Registry.open(registry.settings), "cells", version).version
        except RequestError as error:
            return error.message

    with ThreadPoolExecutor() as pool:
        said = list(pool.map(start, ["2", "3", "2", "3"]))
    (running,) = read_routing(registry, "cells").canaries.values()
    assert said.count(running.version) == 1
    assert sum("is a canary beside cells@champion already" in one for one in said) == 3


def test_a_canary_advances_once_though_two_services_advance_it(registry: Registry) -> None:
    canary = start_canary(registry, "cells", "2")
    now = datetime.now(UTC)
    first = advance_canary(registry, canary, now)
    assert first is not None
    assert advance_canary(Registry.open(registry.settings), canary, now) is None
    assert end_canary(registry, canary, "withdrawn", "late") is None
    assert read_routing(registry, "cells").canaries == {"champion": first}


def test_a_shadow_mirrors_its_share_and_never_what_is_live(registry: Registry) -> None:
    shadow = start_shadow(registry, "cells", "2", share=0.3)
    routing = read_routing(registry, "cells")
    assert routing.shadows == {"champion": shadow}
    assert [routing.mirror(None, key) for key in (0.29, 0.3)] == ["2", None]
    assert routing.mirror("candidate", 0.0) is None
    with pytest.raises(RequestError, match="one at a time"):
        start_shadow(registry, "cells", "3")
    registry.promote("cells", "2")
    assert read_routing(registry, "cells").mirror(None, 0.0) is None


def test_what_was_measured_comes_back_with_the_rollout(registry: Registry) -> None:
    shadow = start_shadow(registry, "cells", "2")
    registry.note("cells", measured_note(shadow, {"requests": 12, "ap50": 0.93}))
    assert read_routing(registry, "cells").shadows["champion"].measured == {"requests": 12, "ap50": 0.93}

"""Rollouts in the registry, and where a request goes."""

from __future__ import annotations

import json
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
    start_rollout,
    stop_rollout,
)
from cytoray_services.rollouts.rollout import Limits, lane, measured_note, read_routing
from simulated_canaries import canary_of, chosen


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 2))
def test_who_once_has_the_canary_keeps_it_as_its_share_grows(key: float, step: int) -> None:
    canary = replace(canary_of(), step=step)
    assert chosen(canary, key) == ("2" if key < (0.05, 0.25, 0.9)[step] else "1")
    if step and chosen(replace(canary, step=step - 1), key) == "2":
        assert chosen(canary, key) == "2"


@pytest.mark.slow
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
    assert chosen(withdrawn, 0.0) == "1"


@pytest.mark.slow
def test_a_canary_is_kept_in_the_registry_and_routes_requests(registry: Registry) -> None:
    limits = Limits(seconds_per_step=5, drift=0.4)
    canary = start_rollout(registry, "cells", "2", steps=(0.2, 1.0), limits=limits, reason="finds dim cells")
    routing = read_routing(Registry.open(registry.settings), "cells")
    assert routing.running == (canary,)
    assert routing.aliases == {"champion": "1"}
    assert sorted(routing.digests) == ["1", "2", "3"]
    assert routing.digests["2"] == registry.resolve("cells/2").digest
    for alias in (None, "champion"):
        assert [routing.version(alias, key) for key in (0.0, 0.19, 0.2, 0.9)] == ["2", "2", "1", "1"]
    assert routing.version("candidate", 0.0) is None
    assert (canary.beside, canary.limits, canary.reason) == ("1", limits, "finds dim cells")


def test_moving_the_alias_by_hand_overrules_the_canary_at_once(registry: Registry) -> None:
    start_rollout(registry, "cells", "2")
    registry.promote("cells", "3")
    assert read_routing(registry, "cells").version(None, 0.0) == "3"


def test_a_model_without_aliases_answers_with_its_newest_version(registry: Registry) -> None:
    routing = replace(read_routing(registry, "cells"), aliases={}, digests={"9": "", "10": ""})
    assert routing.version(None, 0.0) == "10"
    assert routing.mirror(None, 0.0) is None


@pytest.mark.slow
def test_what_was_ended_stays_to_be_seen(registry: Registry) -> None:
    first = start_rollout(registry, "cells", "2")
    advanced = advance_canary(registry, first, datetime.now(UTC))
    assert advanced is not None
    assert end_canary(registry, advanced, "withdrawn", "errors: 7%") is not None
    start_rollout(registry, "cells", "2", answers=False, steps=(0.5,))
    stop_rollout(registry, "shadow", "cells", reason="seen enough")
    start_rollout(registry, "cells", "3")
    stop_rollout(registry, "canary", "cells", reason="lunch")
    routing = read_routing(registry, "cells")
    assert routing.running == ()
    assert [(one.version, one.state, one.why) for one in routing.past] == [
        ("2", "withdrawn", "errors: 7%"),
        ("2", "stopped", "seen enough"),
        ("3", "stopped", "lunch"),
    ]
    assert all(one.by and one.ended for one in routing.past)
    assert registry.resolve("cells@champion").version == "1"


@pytest.mark.slow
def test_what_cannot_be_started_is_refused_with_what_to_do(registry: Registry) -> None:
    with pytest.raises(RequestError, match="cells@champion has version 1 already"):
        start_rollout(registry, "cells", "1")
    with pytest.raises(ModelNotFoundError, match="no version 9; there are: 3, 2, 1"):
        start_rollout(registry, "cells", "9")
    with pytest.raises(ModelNotFoundError, match="no alias 'candidate'"):
        start_rollout(registry, "cells", "2", alias="candidate")
    with pytest.raises(ModelNotFoundError, match="there is no model 'nuclei'"):
        start_rollout(registry, "nuclei", "2")
    for steps in ((), (0.0, 1.0), (0.5, 0.25), (0.5, 2.0), (0.95, 1.0)):
        with pytest.raises(RequestError, match="growing shares"):
            start_rollout(registry, "cells", "2", steps=steps)
    with pytest.raises(RequestError, match="expected a share"):
        start_rollout(registry, "cells", "2", answers=False, steps=(0.0,))
    with pytest.raises(RequestError, match="expected a share"):
        start_rollout(registry, "cells", "2", answers=False)
    with pytest.raises(RequestError, match="no canary stands beside cells@champion"):
        stop_rollout(registry, "canary", "cells")
    with pytest.raises(RequestError, match="no shadow stands beside"):
        stop_rollout(registry, "shadow", "cells")
    assert read_routing(registry, "cells").past == ()


@pytest.mark.slow
def test_of_several_who_start_a_canary_at_once_one_does(registry: Registry) -> None:
    def start(version: str) -> str:
        try:
            return start_rollout(Registry.open(registry.settings), "cells", version).version
        except RequestError as error:
            return error.message

    with ThreadPoolExecutor() as pool:
        said = list(pool.map(start, ["2", "3", "2", "3"]))
    (running,) = read_routing(registry, "cells").running
    assert said.count(running.version) == 1
    assert sum("is a canary beside cells@champion already" in one for one in said) == 3


@pytest.mark.slow
def test_a_canary_advances_once_though_two_services_advance_it(registry: Registry) -> None:
    canary = start_rollout(registry, "cells", "2")
    now = datetime.now(UTC)
    first = advance_canary(registry, canary, now)
    assert first is not None
    assert advance_canary(Registry.open(registry.settings), canary, now) is None
    assert end_canary(registry, canary, "withdrawn", "late") is None
    assert read_routing(registry, "cells").running == (first,)


def test_a_shadow_mirrors_its_share_and_never_what_is_live(registry: Registry) -> None:
    shadow = start_rollout(registry, "cells", "2", answers=False, steps=(0.3,))
    routing = read_routing(registry, "cells")
    assert routing.running == (shadow,)
    assert [routing.mirror(None, key) for key in (0.29, 0.3)] == ["2", None]
    assert routing.mirror("candidate", 0.0) is None
    with pytest.raises(RequestError, match="one at a time"):
        start_rollout(registry, "cells", "3", answers=False, steps=(0.1,))
    registry.promote("cells", "2")
    assert read_routing(registry, "cells").mirror(None, 0.0) is None


def test_what_was_measured_comes_back_with_the_rollout(registry: Registry) -> None:
    shadow = start_rollout(registry, "cells", "2", answers=False, steps=(0.1,))
    registry.note("cells", measured_note(shadow, {"requests": 12, "ap50": 0.93}))
    assert read_routing(registry, "cells").running[0].measured == {"requests": 12, "ap50": 0.93}


KEYS = "20261120T083000.000000Z.ab12", "20261120T083000.000000Z.cd34", "20261119T083000.000000Z.ef56"
WRITTEN_BEFORE = {
    f"rollout.canary.{KEYS[0]}": """{"key":"20261120T083000.000000Z.ab12","model":"cells","alias":"champion",
        "beside":"1","version":"2","steps":[0.2,1.0],"limits":{"seconds_per_step":5.0,"least_requests":500,
        "failures":0.005,"slower":1.25,"slowest":1.5,"drift":0.4},"who":"ada","started":"2026-11-20T08:30:00Z",
        "began":"2026-11-20T08:30:00Z","reason":"finds dim cells","step":0,"state":"running","ended":null,"why":"",
        "by":""}""",
    f"rollout.shadow.{KEYS[1]}": """{"key":"20261120T083000.000000Z.cd34","model":"cells","alias":"champion",
        "version":"3","share":0.5,"who":"ada","started":"2026-11-20T08:30:00Z","reason":"as well","state":"running",
        "ended":null,"why":"","by":""}""",
    f"rollout_measured.{KEYS[1]}": '{"requests":12.0,"ap50":0.93}',
    f"rollout.shadow.{KEYS[2]}": """{"key":"20261119T083000.000000Z.ef56","model":"cells","alias":"champion",
        "version":"2","share":0.1,"who":"ada","started":"2026-11-19T08:30:00Z","reason":"","state":"stopped",
        "ended":"2026-11-19T09:30:00Z","why":"enough","by":"ada"}""",
}


def test_rollouts_written_before_shadows_had_the_form_of_canaries_are_read_and_changed(registry: Registry) -> None:
    registry.note("cells", WRITTEN_BEFORE)
    routing = read_routing(registry, "cells")
    assert [routing.version(None, key) for key in (0.19, 0.2)] == ["2", "1"]
    assert [routing.mirror(None, key) for key in (0.49, 0.5)] == ["3", None]
    canary, shadow = routing.running
    assert (canary.answers, canary.beside, canary.limits) == (True, "1", Limits(seconds_per_step=5.0, drift=0.4))
    assert (shadow.answers, shadow.steps, shadow.measured) == (False, (0.5,), {"requests": 12.0, "ap50": 0.93})
    assert [(one.kind, one.version, one.state, one.why) for one in routing.past] == [
        ("shadow", "2", "stopped", "enough")
    ]
    assert stop_rollout(registry, "shadow", "cells").key == KEYS[1]
    assert advance_canary(registry, canary, datetime.now(UTC)) is not None
    assert [(one.key, one.step) for one in read_routing(registry, "cells").running] == [(KEYS[0], 1)]


def test_a_service_of_the_version_before_can_read_the_record_of_a_shadow(registry: Registry) -> None:
    shadow = start_rollout(registry, "cells", "2", answers=False, steps=(0.3,))
    record = json.loads(registry.notes("cells")[f"rollout.shadow.{shadow.key}"])
    assert {name: record[name] for name in ("share", "version", "state")} == {
        "share": 0.3,
        "version": "2",
        "state": "running",
    }

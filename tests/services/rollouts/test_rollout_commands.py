"""``cytoray models canary``, ``shadow`` and what ``show`` says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cytoray_services.commands.root import main
from cytoray_services.registry import Registry
from cytoray_services.rollouts.rollout import Traffic, traffic_note

Command = Callable[..., tuple[int, Any]]


@pytest.fixture
def cytoray(registry: Registry, capfd: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str) -> tuple[int, Any]:
        with pytest.raises(SystemExit) as ended:
            main([*words])
        said = capfd.readouterr().out
        return int(ended.value.code or 0), json.loads(said) if "--json" in words else said

    return run


@pytest.mark.slow
def test_a_canary_is_started_shown_and_stopped(cytoray: Command) -> None:
    options = ["--steps", "10,100", "--least-requests", "50", "--drift", "1", "--reason", "finds dim cells"]
    status, said = cytoray("models", "canary", "cells", "2", *options)
    assert (status, said.splitlines()[0]) == (0, "cells: canary 2 beside @champion, 10%")
    assert "a decision takes about 700 requests to @champion" in said
    status, shown = cytoray("models", "show", "cells", "--json")
    (canary,) = shown["canaries"]
    assert (status, canary["version"], canary["steps"], canary["reason"]) == (0, "2", [0.1, 1.0], "finds dim cells")
    assert (canary["limits"]["least_requests"], canary["limits"]["drift"]) == (50, 1.0)
    status, said = cytoray("models", "canary", "cells", "--stop", "--reason", "not today")
    assert (status, said) == (0, "cells: canary 2 beside @champion, stopped at 10%\n")
    _, shown = cytoray("models", "show", "cells", "--json")
    assert shown["canaries"] == []
    assert [(one["state"], one["why"]) for one in shown["past_rollouts"]] == [("stopped", "not today")]
    _, said = cytoray("models", "show", "cells")
    assert "canary 2 beside @champion  stopped at 10%  not today" in said


@pytest.mark.slow
def test_the_start_of_a_canary_shows_the_hours_and_what_is_quicker(cytoray: Command, registry: Registry) -> None:
    registry.note("cells", traffic_note("champion", Traffic(100.0, 24.0)))
    _, said = cytoray("models", "canary", "cells", "2")
    assert "at 100 requests per hour a decision takes about 126 hours" in said
    assert "cytoray models shadow cells 2 --alias champion --share 1" in said
    _, shown = cytoray("models", "show", "cells", "--json")
    assert shown["canaries"][0]["hours_expected"] == pytest.approx(125.6, abs=0.1)
    _, said = cytoray("models", "show", "cells")
    assert "a decision takes about 126 hours" in " ".join(said.split())
    cytoray("models", "canary", "cells", "--stop")
    registry.note("cells", traffic_note("champion", Traffic(3_600.0, 24.0)))
    _, said = cytoray("models", "canary", "cells", "2")
    assert "at 3,600 requests per hour a decision takes about 3.5 hours" in said
    assert "shadow" not in said


def test_a_shadow_is_started_shown_and_stopped(cytoray: Command) -> None:
    status, shadow = cytoray("models", "shadow", "cells", "3", "--share", "0.5", "--json")
    assert (status, shadow["version"], shadow["share"], shadow["state"]) == (0, "3", 0.5, "running")
    _, said = cytoray("models", "show", "cells")
    assert "shadow 3 beside @champion  50%" in said
    status, shadow = cytoray("models", "shadow", "cells", "--stop", "--json")
    assert (status, shadow["state"]) == (0, "stopped")


@pytest.mark.slow
def test_wishes_that_make_no_sense_are_the_callers_mistake(cytoray: Command) -> None:
    for words in (
        ["canary", "cells"],
        ["canary", "cells", "2", "--stop"],
        ["canary", "cells", "2", "--steps", "five"],
        ["canary", "cells", "2", "--steps", "50,5"],
        ["canary", "cells", "9"],
        ["shadow", "cells", "1"],
        ["shadow", "cells", "2", "--share", "0"],
    ):
        assert cytoray("models", *words)[0] == 2

"""What an elastic training rests on: how few workers share a step, and how long they wait for their nodes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cytoray_analysis.errors import RecipeError
from cytoray_training.data.batches import shares
from cytoray_training.recipe import Recipe, parse_recipe
from cytoray_training.run import elastic

pytestmark = pytest.mark.ray  # no cluster, but Ray Train is imported


def recipe(*, batch_size: int, accumulate: int = 1, **scale: Any) -> Recipe:
    return parse_recipe(
        {
            "model": {"name": "tiny"},
            "data": {"root": "images"},
            "training": {"batch_size": batch_size, "accumulate": accumulate},
            "scale": scale,
        }
    )


@pytest.mark.parametrize(("batch_size", "accumulate", "workers"), [(16, 1, 4), (24, 3, 4), (15, 1, 5), (4, 1, 4)])
def test_fewer_workers_take_the_same_step_in_more_passes_that_are_no_larger(
    batch_size: int, accumulate: int, workers: int
) -> None:
    asked = recipe(batch_size=batch_size, accumulate=accumulate, workers=workers, min_workers=1)
    assert asked.passes(workers) == accumulate
    for count in range(asked.scale.least_workers, asked.scale.workers + 1):
        sizes = [size for of_worker in shares(batch_size, count, asked.passes(count)) for size in of_worker]
        assert sum(sizes) == batch_size
        assert 1 <= min(sizes) <= max(sizes) <= max(asked.crops_per_pass, 2)


def test_a_batch_must_divide_among_all_workers_only() -> None:
    assert recipe(batch_size=8, workers=4, min_workers=3).passes(3) == 2
    with pytest.raises(RecipeError, match="multiple of"):
        recipe(batch_size=8, workers=3, min_workers=2)


def test_a_training_ends_when_its_workers_have_waited_too_long_for_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.train.v2._internal.execution.controller.state import InitializingState, RunningState

    monkeypatch.setattr(elastic, "_LEAST_PATIENCE", 0.0)
    waiting, running = InitializingState(), RunningState()  # type: ignore[no-untyped-call]
    patience = elastic.patience(0.6)
    patience.after_controller_state_update(waiting, waiting)
    patience.after_controller_state_update(waiting, running)  # the time starts anew
    patience.after_controller_state_update(running, waiting)
    patience.after_controller_state_update(waiting, waiting)  # waits half a second, so as not to ask all the time
    time.sleep(0.2)
    with pytest.raises(TimeoutError, match="the cluster provided none"):
        patience.after_controller_state_update(waiting, waiting)

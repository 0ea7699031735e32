"""What several training runs will cost, as it is said before they start and while they go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cytoray_services.settings import load_settings
from cytoray_training.plan.planning import make_plan
from cytoray_training.recipe import Recipe
from cytoray_training.search.cost import Cost, seconds_of
from cytoray_training.search.study import Member, open_study

MakeRecipe = Callable[..., Recipe]


def test_before_anything_was_trained_the_time_is_unknown_unless_the_recipe_limits_it(make_recipe: MakeRecipe) -> None:
    cost = Cost("search", make_recipe(epochs=10), 20, max_concurrent=4)
    assert cost.before(0, 0.0, []) == (
        "search: 20 training runs, 4 at a time on 4 workers in all; time: unknown until the first has ended"
    )
    limited = Cost("6 folds and the final model", make_recipe(epochs=10, minutes=30), 7)
    assert limited.before(0, 0.0, []).endswith(
        "7 training runs, 1 at a time on 1 worker in all; time: about 3 h 30 min"
    )


def test_what_was_measured_counts_by_epochs_and_in_rounds(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(epochs=10)
    assert seconds_of(recipe, [(5, 60.0), (10, 90.0)]) == pytest.approx(100.0)  # 10 s an epoch
    assert seconds_of(make_recipe(epochs=10, minutes=1), [(5, 60.0)]) == 60.0
    cost = Cost("search", recipe, 9, max_concurrent=4, last=make_recipe(epochs=100), fewer=True)
    # Of nine one has ended: two rounds of 120 s and the last training of 1200 s.
    line = cost.after(1, 0.0, [(10, 120.0)])
    assert line == "search: 1 of 10 training runs have ended; time: at most about 24 min"
    assert not cost.is_over(9)
    assert cost.is_over(10)


def test_the_trainings_that_confirm_the_best_are_counted_and_come_one_by_one(make_recipe: MakeRecipe) -> None:
    cost = Cost("search", make_recipe(epochs=10), 9, max_concurrent=4, confirming=4)
    assert "9 training runs, up to 4 more to compare the best with the unchanged recipe, 4 at" in cost.before(0, 0, [])
    # Two rounds of 120 s and four of 120 s; then two of these four.
    assert cost.after(1, 0.0, [(10, 120.0)]) == "search: 1 of 13 training runs have ended; time: at most about 12 min"
    assert cost.after(11, 0.0, [(10, 120.0)]) == "search: 11 of 13 training runs have ended; time: at most about 4 min"
    assert not cost.is_over(12)
    assert cost.is_over(13)


def test_hours_are_a_limit_and_so_is_what_is_left_of_them(make_recipe: MakeRecipe) -> None:
    cost = Cost("search", make_recipe(epochs=10), None, hours=2.0)
    assert cost.before(0, 0.0, []).startswith("search: as many training runs as the hours allow, 1 at a time")
    assert cost.before(0, 0.0, []).endswith("time: at most about 2 h 0 min")
    assert cost.after(3, 3600.0, [(10, 60.0)]).endswith("time: at most about 60 min")
    few = Cost("search", make_recipe(epochs=10), 3, hours=2.0)
    assert few.after(1, 0.0, [(10, 60.0)]).endswith("time: at most about 2 min")


@pytest.mark.slow
def test_a_study_says_it_on_standard_error_and_in_its_run_and_knows_what_ended_before(
    registry_home: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, settings = make_plan(make_recipe(epochs=2), load_settings()), load_settings()
    cost = Cost("learning curve", plan.recipe, 3)
    with (
        contextlib.suppress(KeyboardInterrupt),
        open_study("curve", plan, settings, wanted={}, cost=cost) as study,
    ):
        assert "learning curve: 3 training runs, 1 at a time" in capsys.readouterr().err
        study.note(Member("one", state="completed", facts={"epochs": 2, "seconds": 50.0}))
        study.tell_cost()
        line = "learning curve: 1 of 3 training runs have ended; time: about 2 min"
        assert line in capsys.readouterr().err
        raise KeyboardInterrupt
    with contextlib.suppress(KeyboardInterrupt), open_study("curve", plan, settings, wanted={}, cost=cost) as study:
        assert "3 training runs, of which 1 has already ended" in capsys.readouterr().err
        with study.registry._connection.client() as client:
            assert "of which 1 has already ended" in client.get_run(study.run.run_id).data.tags["cost"]
        raise KeyboardInterrupt

"""Trials without Ray: their order, their budget, what survives an interruption, and how a population goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cytoray_analysis.errors import RecipeError
from cytoray_services.settings import load_settings
from cytoray_training.plan.planning import make_plan
from cytoray_training.recipe import Recipe
from cytoray_training.search.population import is_replaced, perturbed, require_mutable
from cytoray_training.search.report import common_place, parallel_coordinates
from cytoray_training.search.space import Choice, Range, parse_space, place_of
from cytoray_training.search.study import Member, open_study
from cytoray_training.search.trial import KEPT
from cytoray_training.search.trials import Trials


class KilledError(Exception):
    """Stands for the death of the process, which here ends every spell."""


MakeRecipe = Callable[..., Recipe]
RATES = {"training.learning_rate": {"log_range": [1e-4, 1e-1]}}


@pytest.fixture
def open_trials(registry_home: Path, make_recipe: MakeRecipe) -> Callable[..., Any]:
    """Return a context that opens the search of a section ``tune``, as each start of the command does."""
    settings = load_settings()

    @contextmanager
    def opened(**tune: Any) -> Iterator[Trials]:
        recipe = make_recipe({"space": RATES, **tune})
        assert recipe.tune is not None
        plan = make_plan(recipe.model_copy(update={"tune": None}), settings)
        with contextlib.suppress(KilledError), open_study("search", plan, settings, wanted={}) as study:
            yield Trials(study, plan, recipe.tune, parse_space(recipe), "pearson")
            raise KilledError

    return opened


def scored(epoch: int, score: float) -> dict[str, float]:
    return {"epoch": epoch, "progress": epoch / 4, "pearson": score}


@pytest.mark.slow
def test_the_recipe_comes_first_and_what_was_interrupted_before_anything_new(open_trials: Callable[..., Any]) -> None:
    with open_trials(trials=3) as trials:
        first, second = trials.next(), trials.next()
        assert first.values == {}
        trials.report(first.name, scored(1, 0.5))
        trials.end(first.name, "completed")
        trials.report(second.name, scored(1, 0.4))
    with open_trials(trials=3) as trials:
        resumed, third = trials.next(), trials.next()
        assert (resumed.name, resumed.values, resumed.run_id) == (second.name, second.values, second.run_id)
        assert [dict(one) for one in resumed.scores] == [scored(1, 0.4)]
        trials.report(resumed.name, scored(1, 0.4))  # reported again when it continues
        assert len(trials.report(resumed.name, scored(2, 0.6)).scores) == 2
        assert trials.next() is None
        assert not trials.exhausted
        trials.end(resumed.name, "stopped", "behind")
        trials.end(third.name, "failed", "diverged")
        assert trials.exhausted
        assert [member.state for member in trials.members] == ["completed", "stopped", "failed"]
        assert trials.best().name == first.name  # was trained to its end, which the better one was not


@pytest.mark.slow
def test_more_trials_go_on_with_the_same_search_and_hours_end_it(open_trials: Callable[..., Any]) -> None:
    with open_trials(trials=1) as trials:
        first = trials.next()
        trials.report(first.name, scored(4, 0.5) | {"nrmse": 0.4})
        trials.end(first.name, "completed")
        assert trials.exhausted
    with open_trials(trials=2) as trials:
        assert not trials.exhausted
        second = trials.next()
        assert second.name == "trial-002"
        trials.report(second.name, scored(4, 0.6) | {"nrmse": 0.9})
        trials.end(second.name, "completed")
        assert trials.best().name == "trial-002"
        trials.metric = "nrmse"  # of which less is better
        assert trials.best().name == "trial-001"
        assert [dict(one.steps) for one in trials.tried()] == [{100: -0.4}, {100: -0.9}]
    with open_trials(trials=None, hours=1e-9) as trials:
        assert trials.seconds_left == 0.0


@pytest.mark.slow
def test_a_place_in_a_population_is_taken_by_a_heir_of_a_better_one(open_trials: Callable[..., Any]) -> None:
    section = {"searcher": "population", "trials": 3, "population": {"size": 2, "interval": 2, "share": 0.5}}
    with open_trials(**section) as trials:
        better, worse = trials.next(), trials.next()
        assert trials.next() is None
        for member, score in ((better, 0.8), (worse, 0.3)):
            trials.report(member.name, scored(2, score))
        kept = trials.study.folder / better.name / KEPT / "2"
        kept.mkdir(parents=True)
        (kept / "checkpoint.json").write_text("{}")
        trials.end(worse.name, "stopped")
        heir = trials.next()
        assert heir.facts == {"from": better.name, "epoch": 2, "instead_of": worse.name}
        rate = heir.values["training.learning_rate"]
        assert rate == pytest.approx(1e-2 * 1.2) or rate == pytest.approx(1e-2 / 1.2)
        assert (trials.study.folder / heir.name / "start" / "checkpoint.json").is_file()
        for member in (better, heir):
            trials.end(member.name, "completed")
        assert trials.exhausted


def test_what_cannot_change_during_a_training_is_refused_for_a_population(make_recipe: MakeRecipe) -> None:
    require_mutable(parse_space(make_recipe({"space": RATES})))
    with pytest.raises(RecipeError, match="batch_size"):
        require_mutable(parse_space(make_recipe({"space": {"training.batch_size": {"choice": [4, 8]}}})))


def test_perturbed_values_stay_in_the_space() -> None:
    space: dict[str, Choice | Range] = {
        "rate": Range(1e-3, 1e-1, log=True),
        "width": Choice((4, 8, 16)),
        "count": Range(1, 9, whole=True),
    }
    for seed in range(20):
        values = perturbed(space, {"rate": 9e-2, "width": 16, "count": 8}, 1.2, np.random.default_rng(seed))
        assert values["rate"] == pytest.approx(0.1) or values["rate"] == pytest.approx(9e-2 / 1.2)
        assert values["width"] in (8, 16)
        assert values["count"] in (7, 9)


def test_trials_are_compared_where_all_have_been(make_recipe: MakeRecipe) -> None:
    members = [
        Member("trial-001", scores=(scored(1, 0.3), scored(2, 0.5), scored(3, 0.9)), state="completed"),
        Member("trial-002", scores=(scored(1, 0.4), scored(2, 0.45)), state="stopped"),
        Member("trial-003", state="failed"),
    ]
    place, scores = common_place(members, "pearson")
    assert place == 0.5
    assert scores == {"trial-001": 0.5, "trial-002": 0.45}
    space = parse_space(make_recipe({"space": RATES}))
    placed = {member.name: place_of(space, make_recipe(), member.values) for member in members}
    assert parallel_coordinates(space, members, placed, "pearson", "trial-001").startswith(b"\x89PNG")


@pytest.mark.parametrize(("metric", "best"), [("pearson", 0.30), ("nrmse", 0.02), ("coverage68", 0.30)])
def test_the_best_of_a_trial_follows_the_direction_of_its_score(metric: str, best: float) -> None:
    scores = ({"epoch": 1, metric: 0.30}, {"epoch": 2, metric: 0.02}, {"epoch": 3, metric: float("nan")})
    assert Member("trial-001", scores=scores).best(metric) == best
    assert Member("trial-001").best(metric) is None


def test_the_worst_of_a_population_is_reported_by_the_direction_of_the_score(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe({"space": RATES, "searcher": "population", "population": {"size": 2, "share": 0.5}})
    members = [Member(f"trial-{at}", scores=({"epoch": 1, "nrmse": score},)) for at, score in enumerate((0.4, 0.9))]
    assert recipe.tune is not None
    assert [is_replaced(one, members, recipe.tune, "nrmse") for one in members] == [False, True]

"""What a search may vary, and what is refused before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cytoray_analysis.errors import RecipeError
from cytoray_training.recipe import Recipe, recipe_hash
from cytoray_training.search.sampler import Tried, importances, suggest
from cytoray_training.search.space import Choice, Range, parse_space, place_of

MakeRecipe = Callable[..., Recipe]


def spaced(make_recipe: MakeRecipe, space: dict[str, Any]) -> dict[str, Choice | Range]:
    return parse_space(make_recipe({"space": space}))


def test_choices_ranges_and_logarithmic_ranges_are_read(make_recipe: MakeRecipe) -> None:
    space = spaced(
        make_recipe,
        {
            "training.learning_rate": {"log_range": [1e-4, 1e-1]},
            "training.warmup": {"range": ["0e-1", 0.5]},  # as YAML reads 0e-1
            "training.epochs": {"range": [2, 9]},
            "model.network.arguments.widths": {"choice": [[8, 16], [16, 32]]},
        },
    )
    assert space["training.learning_rate"] == Range(1e-4, 1e-1, whole=False, log=True)
    assert space["training.warmup"] == Range(0.0, 0.5)
    assert space["training.epochs"] == Range(2, 9, whole=True)
    assert space["model.network.arguments.widths"] == Choice(([8, 16], [16, 32]))


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("training.learning_rat", "did you mean 'training.learning_rate'?"),
        ("training.weightdecay", "did you mean 'training.weight_decay'?"),
        ("augmentation.elastc", "did you mean 'augmentation.elastic'?"),
        ("learning_rate", "did you mean 'training.learning_rate'?"),
        ("trainin.learning_rate", "did you mean 'training.learning_rate'?"),
    ],
)
def test_a_field_that_does_not_exist_is_refused_with_what_was_meant(
    make_recipe: MakeRecipe, path: str, hint: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        spaced(make_recipe, {path: {"choice": [1, 2]}})
    assert caught.value.field == f"tune.space.{path}"
    assert path in caught.value.message
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("training.learning_rate", {"log_range": [0.0, 0.1]}),
        ("training.learning_rate", {"log_range": [0.1, 0.01]}),
        ("training.learning_rate", {"range": [0.1, 5.0]}),
        ("training.learning_rate", {"range": ["low", 0.1]}),
        ("training.learning_rate", {"between": [0.1, 0.2]}),
        ("training.learning_rate", {"choice": [0.1]}),
        ("training.engine", {"choice": ["torch", "jax"]}),
        ("training", {"choice": [1, 2]}),
        ("training.epochs.more", {"choice": [1, 2]}),
        ("scale.workers", {"choice": [1, 2]}),
        ("training.label_share", {"range": [0.1, 1.0]}),
    ],
)
def test_a_space_that_no_recipe_fits_is_refused(make_recipe: MakeRecipe, path: str, form: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        spaced(make_recipe, {path: form})
    assert path in (caught.value.field or "")


def test_a_recipe_without_a_space_or_a_budget_is_refused(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match="tune"):
        parse_space(make_recipe())
    with pytest.raises(RecipeError, match="budget"):
        make_recipe({"space": {"training.warmup": {"range": [0.0, 0.5]}}, "trials": None})


def test_a_search_and_folds_do_not_change_what_a_recipe_is(make_recipe: MakeRecipe) -> None:
    searched = make_recipe({"space": {"training.warmup": {"range": [0.0, 0.5]}}}, data={"folds": 3})
    assert recipe_hash(searched) == recipe_hash(make_recipe())
    assert recipe_hash(searched) != recipe_hash(make_recipe(learning_rate=1e-3))


def test_the_recipe_itself_has_a_place_in_the_space_unless_it_lies_outside(make_recipe: MakeRecipe) -> None:
    space = spaced(
        make_recipe,
        {
            "training.learning_rate": {"log_range": [1e-4, 1e-1]},
            "model.network.arguments.widths": {"choice": [[16, 32], [8, 16]]},
        },
    )
    assert place_of(space, make_recipe(), {}) == {"training.learning_rate": 1e-2, "model.network.arguments.widths": 1}
    assert place_of(space, make_recipe(), {"training.learning_rate": 0.5}) is None


SPACE: dict[str, Choice | Range] = {
    "rate": Range(1e-5, 1.0, log=True),
    "width": Choice((4, 8)),
    "count": Range(1, 9, whole=True),
}


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_a_suggestion_depends_on_the_records_and_the_number_alone(searcher: str) -> None:
    first = [suggest(SPACE, [], searcher=searcher, seed=1, number=number) for number in range(6)]
    again = [suggest(SPACE, [], searcher=searcher, seed=1, number=number) for number in range(6)]
    assert first == again
    assert len({one["rate"] for one in first}) == 6
    assert all(1e-5 <= one["rate"] <= 1.0 and one["width"] in (4, 8) and one["count"] in range(1, 10) for one in first)


def test_the_parzen_estimator_goes_where_the_scores_are_good_and_random_does_not() -> None:
    def distances(searcher: str) -> list[float]:
        tried: list[Tried] = []
        found = []
        for number in range(30):
            values = suggest(SPACE, tried, searcher=searcher, seed=0, number=number)
            distance = abs(values["rate"] - 0.01) / 0.01
            places = {"rate": values["rate"], "width": (4, 8).index(values["width"]), "count": values["count"]}
            tried.append(Tried(places, {1: -min(distance, 10.0)}, "completed"))
            found.append(min(distance, 10.0))
        return sorted(found[10:])

    assert distances("optuna")[10] < distances("random")[10]


def test_the_parameter_that_decides_is_found_important() -> None:
    places = [{"rate": 10.0 ** -(index % 5), "width": index % 2, "count": 1 + index % 7} for index in range(30)]
    scores = [-float(place["count"]) for place in places]
    shares = importances(SPACE, places, scores)
    assert next(iter(shares)) == "count"
    assert sum(shares.values()) == pytest.approx(1.0)
    assert importances(SPACE, places[:2], scores[:2]) == {}

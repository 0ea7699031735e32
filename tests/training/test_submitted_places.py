"""What a submission says of the places that its recipe names: all of them, wherever in the recipe they stand."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from cytoray_analysis.errors import RecipeError
from cytoray_services.jobs.submission import Submission, read_submission
from cytoray_training.recipe import Recipe, parse_recipe
from cytoray_training.search.space import parse_space

CONTENT: dict[str, Any] = {
    "model": {"name": "eve", "task": {"name": "classification", "arguments": {"classes": ["x", "y"]}}},
    "data": {"root": "pvc://shared/a"},
}


def submitted(**changes: Any) -> Submission:
    return read_submission(yaml.safe_dump(CONTENT | changes))


def starting(source: str) -> dict[str, Any]:
    return {"model": CONTENT["model"] | {"start": {"from": source}}}


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("/data/shared/b/model", "/data/shared/b/model"),
        ("pvc://shared/b/model", "pvc://shared/b/model"),
        ("file:///data/shared/b/model", "/data/shared/b/model"),
        ("../b/model", "../b/model"),
        ("~/model", "~/model"),
        ("a/b/model", "a/b/model"),
    ],
)
def test_a_folder_that_a_training_starts_from_is_reported(source: str, place: str) -> None:
    assert submitted(**starting(source)).data == ("pvc://shared/a", place)


@pytest.mark.parametrize("source", ["registry:nuclei", "registry:nuclei@champion", "facebook/dinov2-small", "resnet"])
def test_a_registered_model_and_one_of_a_hub_are_no_places(source: str) -> None:
    assert submitted(**starting(source)).data == ("pvc://shared/a",)


@pytest.mark.parametrize("source", ["registry:/data/shared/b/model", "registry:../b", "registry:a/b/c", "s3://lab/b"])
def test_no_folder_is_named_as_if_it_were_a_registered_model(source: str) -> None:
    with pytest.raises(RecipeError) as caught:
        submitted(**starting(source))
    assert caught.value.field == "model.start.from"


def test_every_field_for_a_place_is_reported() -> None:
    """A new field of this kind must be added to what a submission says."""
    assert set(_place_fields(Recipe)) == {"data.root", "data.validation", "data.within"}
    places = ("pvc://shared/a", "s3://lab/b", "/x/c")
    data = {"root": list(places[:2]), "validation": places[2]}
    assert submitted(data=data, **starting("/x/d")).data == (*places, "/x/d")


def _place_fields(section: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        inner = next((one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if inner is not None:
            found += _place_fields(inner, f"{prefix}{name}.")
        elif "Path" in str(field.annotation):
            found.append(f"{prefix}{name}")
    return found


SPACE = {"training.learning_rate": {"log_range": [1e-4, 1e-2]}}


def refitting(values: dict[str, Any]) -> dict[str, Any]:
    return CONTENT | {"tune": {"space": SPACE, "refit": values}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.root", "pvc://shared/b"),
        ("data.root.0", "pvc://shared/b"),
        ("data.validation", "pvc://shared/b"),
        ("data", {"root": "pvc://shared/b"}),
        ("data.within", None),
        ("data.columns", {"image": "other"}),
        ("model", {"name": "nuclei"}),
        ("model.name", "nuclei"),
        ("model.start", {"from": "/data/shared/b/model"}),
        ("model.start.from", "/data/shared/b/model"),
        ("model.task.name", "segmentation"),
        ("tune", None),
    ],
)
def test_the_last_training_of_a_search_answers_the_same_question(field: str, value: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(refitting({field: value}))
    assert caught.value.field == f"tune.refit.{field}"


def test_the_last_training_of_a_search_may_be_longer_and_larger() -> None:
    values = {"training.epochs": 50, "training.minutes": 38, "scale.workers": 2, "training.label_share": 1.0}
    recipe = parse_recipe(refitting(values))
    assert recipe.tune is not None
    assert recipe.tune.refit == values
    parse_space(recipe)

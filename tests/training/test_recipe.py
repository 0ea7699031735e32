"""What a recipe accepts, and what it says about what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cytoray_analysis.errors import MissingFileError, RecipeError
from cytoray_training.recipe import Recipe, load_recipe, parse_recipe, recipe_hash

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


def minimal(**sections: Any) -> dict[str, Any]:
    return {"model": {"name": "cells"}, "data": {"root": "images"}} | sections


def written(folder: Path, content: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path).model.name


def test_overrides_are_parsed_as_yaml_and_reach_nested_fields(tmp_path: Path) -> None:
    path = written(tmp_path, minimal())
    recipe = load_recipe(
        path,
        [
            "training.epochs=7",
            "data.channels=[dapi, actin]",
            "model.network.arguments.widths=[8, 16]",
            "training.early_stopping=null",
            "augmentation.zoom=[0.5, 2]",
        ],
    )
    assert recipe.training.epochs == 7
    assert recipe.data.channel_names == ("dapi", "actin")
    assert recipe.model.network.arguments == {"widths": [8, 16]}
    assert recipe.training.early_stopping is None
    assert recipe.augmentation.zoom == (0.5, 2.0)


@pytest.mark.parametrize(
    "overrides",
    [
        ("training.epochs=7", "training.epochs=8"),
        ("training.epochs=7", "training.epochs=7"),
        ("training.epochs=7", "training={epochs: 8}"),
        ("model.network={}", "data.channels=[a]", "model.network.arguments.widths=[8, 16]"),
        ("training.epochs=7", " training . epochs =8"),
    ],
)
def test_overrides_of_which_one_would_undo_another_are_refused(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as raised:
        load_recipe(written(tmp_path, minimal()), overrides)
    assert repr(overrides[0]) in raised.value.message
    assert repr(overrides[-1]) in raised.value.message


def test_fields_of_one_section_are_set_beside_each_other(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, minimal()), ["training.epochs=7", "training.batch_size=4"])
    assert (recipe.training.epochs, recipe.training.batch_size) == (7, 4)


def test_a_relative_root_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    path = written(tmp_path / "elsewhere", minimal())
    monkeypatch.chdir(tmp_path)
    assert load_recipe(path).data.root == tmp_path / "images"


def test_places_elsewhere_stay_uris_also_when_the_recipe_travels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = ["s3://bucket/cells/", "pvc://claim/cells", "file:///plates", "cells"]
    recipe = parse_recipe(minimal(data={"root": places, "validation": "s3://bucket/frozen"}))
    assert recipe.data.roots == ("s3://bucket/cells", "pvc://claim/cells", Path("/plates"), tmp_path / "cells")
    assert recipe.data.validation_roots == ("s3://bucket/frozen",)
    monkeypatch.chdir("/")
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True)))) == recipe


def test_how_data_are_cut_is_no_part_of_a_run() -> None:
    plain = parse_recipe(minimal())
    cut = parse_recipe(minimal(data={"root": "s3://bucket/images", "shards": {"use": "always", "megabytes": 64}}))
    assert recipe_hash(cut) == recipe_hash(plain)


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"training": {"epoch": 3}}, "training.epoch", "epochs"),
        ({"trainig": {}}, "trainig", "training"),
        ({"training": {"epochs": 0}}, "training.epochs", "greater than or equal to 1"),
        ({"training": {"learning_rate": "fast"}}, "training.learning_rate", "number"),
        ({"training": {"engine": "horovod"}}, "training.engine", "'torch' or 'deepspeed'"),
        ({"training": {"zero_stage": 4}}, "training.zero_stage", "less than or equal to 3"),
        ({"training": {"crop_size": 4}}, "training.crop_size", "greater than or equal to 8"),
        ({"augmentation": {"zom": [1, 2]}}, "augmentation.zom", "zoom"),
        ({"data": {"root": "x", "scaling": {"low": 200}}}, "data.scaling.low", "less than 100"),
        ({"data": {}}, "data.root", "expected the field 'data.root', found none"),
        ({"data": {"root": "ftp://host/x"}}, "data.root", "ftp"),
        ({"data": {"root": ["x", "s3://"]}}, "data.root.1", "s3://bucket"),
        ({"data": {"root": 5}}, "data.root", "folder or a URI"),
        ({"data": {"root": []}}, "data.root", "empty list"),
        ({"data": {"root": "x", "channels": []}}, "data.channels", "empty list"),
        ({"data": {"root": "x", "shards": {"held": 0}}}, "data.shards.held", "greater than"),
        ({"model": {"name": "Bad Name"}}, "model.name", "pattern"),
        ({"training": {"batch_size": 9}, "scale": {"workers": 2}}, "training.batch_size", "multiple of"),
    ],
)
def test_an_error_names_the_field_and_what_would_fit(change: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(minimal(**change))
    assert caught.value.field == field
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_an_error_shows_the_value_and_lists_what_else_is_wrong() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(minimal(training={"epochs": -4, "seed": "x"}))
    assert "-4" in caught.value.message
    assert "training.seed" in caught.value.message


@pytest.mark.parametrize("text", ["training.epochs", "=3", "training..epochs=3", "model.name.first=x", "a=[1"])
def test_a_malformed_override_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe(written(tmp_path, minimal()), [text])


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [1", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RecipeError):
        load_recipe(path)


def test_yaml_tags_run_no_code(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    with pytest.raises(RecipeError):
        load_recipe(path)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_the_hash_covers_what_shapes_the_result_and_nothing_else() -> None:
    def hash_of(**sections: Any) -> str:
        return recipe_hash(parse_recipe(minimal(**sections)))

    assert hash_of() == hash_of(data={"root": "moved"}) == hash_of(scale={"workers": 2})
    assert hash_of() != hash_of(training={"seed": 1})
    assert hash_of() != hash_of(augmentation={"noise": 0.0})


def test_a_recipe_cannot_be_changed() -> None:
    recipe: Recipe = parse_recipe(minimal())
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.epochs = 3  # type: ignore[misc]


def test_a_field_that_is_written_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: {name: cells}\ntraining: {epochs: 1, seed: 2, epochs: 3}\n")
    with pytest.raises(RecipeError, match="'epochs' twice"):
        load_recipe(tmp_path / "recipe.yaml")


def test_an_epoch_of_less_than_a_batch_is_refused_with_both_names() -> None:
    with pytest.raises(RecipeError) as raised:
        parse_recipe(minimal(training={"crops_per_epoch": 15, "batch_size": 16}))
    assert raised.value.field == "training.crops_per_epoch"
    assert "training.batch_size = 16" in raised.value.message
    assert "training.crops_per_epoch to 16" in str(raised.value.hint)
    assert parse_recipe(minimal(training={"crops_per_epoch": 16, "batch_size": 16})).training.steps_per_epoch == 1

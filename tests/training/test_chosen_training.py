"""Training on what a recipe takes of each image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cytoray_analysis.bundle import ModelInput, TaskChoice
from cytoray_analysis.errors import RecipeError
from cytoray_analysis.images import image_from_array, write_image, write_labels
from cytoray_analysis.selection import Selection
from cytoray_services.datasets import DataSource, Finding, hash_dataset, open_dataset
from cytoray_training.data.cache import cache_key, open_cache
from cytoray_training.plan.plan import data_source
from cytoray_training.plan.planning import require_each, summed_up
from cytoray_training.recipe import parse_recipe, recipe_hash

GREY, TASK = ModelInput(channels=("grey",)), TaskChoice(name="segmentation")


def recipe(**data: Any) -> Any:
    return parse_recipe({"model": {"name": "cells"}, "data": {"root": "/data", **data}})


def test_a_recipe_says_what_is_taken_and_its_hash_with_it() -> None:
    plain, chosen = recipe(), recipe(select={"channel": "DAPI", "plane": 2, "pixel_size": 0.5})
    assert chosen.data.select == Selection(channel=("DAPI",), plane="2", pixel_size="0.5")
    assert len({recipe_hash(one) for one in (plain, chosen, recipe(select={"plane": "max"}))}) == 3
    assert recipe_hash(recipe(select={})) == recipe_hash(plain)
    assert data_source(chosen).selection == chosen.data.select
    assert DataSource.from_record(data_source(chosen).to_record()) == data_source(chosen)
    assert parse_recipe(chosen.model_dump(mode="json")) == chosen


@pytest.mark.parametrize(
    ("select", "field"),
    [
        ({"plane": "last"}, "data.select.plane"),
        ({"series": "each"}, "data.select.series"),
        ({"plan": 1}, "data.select"),
    ],
)
def test_a_choice_that_is_none_is_refused_with_its_field(select: dict[str, Any], field: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(select=select)
    assert (caught.value.field or "").startswith(field)


def test_planes_one_by_one_are_no_data_for_a_model_of_volumes() -> None:
    require_each(recipe(select={"plane": "each"}))
    for wrong in (recipe(select={"plane": "each"}, axes="ZYX"), recipe(select={"plane": "each"}, planes=5)):
        with pytest.raises(RecipeError) as caught:
            require_each(wrong)
        assert caught.value.field == "data.select.plane"


@pytest.mark.slow
def test_the_cache_holds_what_is_taken_and_is_another_for_another_choice(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 32, 32), np.uint8)
    masks = np.zeros((3, 32, 32), np.uint16)
    masks[:, 4:12, 4:12] = 1
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    write_image(tmp_path / "set/images/a.ome.tif", image_from_array(pixels, "CZYX", channels=["DAPI", "GFP"]))
    write_labels(tmp_path / "set/masks/a.tif", masks)
    (tmp_path / "set/manifest.csv").write_text("image,mask,split\nimages/a.ome.tif,masks/a.tif,train\n")
    dataset = open_dataset(tmp_path / "set")
    digest = hash_dataset(dataset)

    def opened(**fields: Any) -> Any:
        return open_cache(tmp_path / "caches", dataset.choosing(Selection(**fields)), digest, GREY, TASK)

    one, every = opened(channel="GFP", plane=1), opened(channel="GFP", plane="each")
    assert one.folder != every.folder
    assert (len(one.entries), len(every.entries)) == (1, 3)
    np.testing.assert_array_equal(one.pixels(0).pixels[0], pixels[1, 1])
    for index in range(3):
        np.testing.assert_array_equal(every.pixels(index).pixels[0], pixels[1, index])
    assert cache_key(digest, GREY, TASK) == cache_key(digest, GREY, TASK, Selection())


def test_warnings_about_many_files_are_one_line_each_kind() -> None:
    found = [Finding("warning", f"{name}.tif", "no size", "Add it.", "pixel-size-unknown") for name in "abc"]
    found += [Finding("note", ".", "few", "", "few"), Finding("warning", "d.tif", "blank", "Look.", "constant-image")]
    lines = summed_up(found)
    assert lines == [
        "3 files, such as a.tif: no size. Add it. [pixel-size-unknown]",
        "d.tif: blank. Look. [constant-image]",
    ]

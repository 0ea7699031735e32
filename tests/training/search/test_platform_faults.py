"""A full disk, a lost worker or a folder that is not there is no verdict on a recipe: the training stays open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import PlatformError, RecipeError, TrainingError, UntrainableError
from cytoray_services.settings import load_settings
from cytoray_training.plan.planning import make_plan
from cytoray_training.recipe import Recipe
from cytoray_training.run.launch import _is_of_recipe
from cytoray_training.search import study as studies
from cytoray_training.search.search import run_search
from cytoray_training.search.study import _persistently

MakeRecipe = Callable[..., Recipe]


def worker_error(*failures: Exception, lost: bool = False) -> Exception:
    """Return what Ray Train raises when workers raised these, and one was lost beside them."""
    from ray.exceptions import ActorDiedError
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
    from ray.train.v2.api.exceptions import WorkerGroupError

    said: list[Exception] = [UserExceptionWithTraceback(one, str(one)) for one in failures]
    said += [ActorDiedError()] if lost else []
    return WorkerGroupError("workers failed", dict(enumerate(said)))


@pytest.mark.slow
def test_what_workers_died_of_distinguishes_a_verdict_from_a_fault() -> None:
    assert _is_of_recipe(worker_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
    assert not _is_of_recipe(worker_error(OSError(28, "No space left on device")))
    assert not _is_of_recipe(worker_error(RuntimeError("[gloo] Connection closed by peer")))
    assert not _is_of_recipe(worker_error(RuntimeError("a consequence"), lost=True))
    assert not _is_of_recipe(worker_error(lost=True))
    assert not _is_of_recipe(RuntimeError("of the controller"))


@pytest.mark.usefixtures("cytoray_home")
def test_a_training_of_a_study_is_tried_again_after_a_fault_and_not_after_a_verdict(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(studies, "_SECONDS_BETWEEN_TRIES", 0.0)
    plan = make_plan(make_recipe(), load_settings())
    failures = plan.recipe.scale.max_failures

    def tries(error: Exception, times: int) -> int:
        count = 0

        def train() -> Any:
            nonlocal count
            count += 1
            if count <= times:
                raise error
            return "trained"

        try:
            assert _persistently("fold-1", plan, train) == "trained"  # type: ignore[comparison-overlap]
        except (PlatformError, RecipeError):
            return -count
        return count

    assert tries(PlatformError("no space"), failures) == failures + 1
    assert capsys.readouterr().err.count("fold-1 failed: no space; retrying") == failures
    assert tries(OSError(28, "No space left on device"), 1) == 2
    assert tries(TrainingError("lost"), failures + 1) == -(failures + 1)
    assert tries(UntrainableError("the gradient is nan"), 1) == -1
    assert tries(RecipeError("they do not fit"), 1) == -1


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_a_search_on_a_machine_without_room_for_the_images_stays_open_and_goes_on(
    cytoray_home: Path,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scratch = tmp_path / "scratch"
    scratch.write_text("a file, in which no folder can be made")
    monkeypatch.setenv("CYTORAY_CACHE", str(scratch / "cache"))
    tune = {"space": {"training.seed": {"choice": [1, 2]}}, "trials": 1, "asha": None}
    recipe = make_recipe(tune, epochs=1)
    recipe = recipe.model_copy(update={"scale": recipe.scale.model_copy(update={"max_failures": 1})})
    with pytest.raises(PlatformError, match="trial-001 failed") as caught:
        run_search(recipe, load_settings())
    assert "run the same command again" in (caught.value.hint or "")
    said = capsys.readouterr().err
    assert said.count("trial-001  failed: ") == 2
    assert "Traceback" not in said
    (record,) = (cytoray_home / "studies").glob("search-*/members/trial-001.json")
    known = json.loads(record.read_text(encoding="utf-8"))
    assert known["state"] == "running"
    assert str(scratch) in known["reason"]

    scratch.unlink()
    outcome = run_search(recipe, load_settings())
    assert [(trial["name"], trial["state"], trial["reason"]) for trial in outcome["trials"]] == [
        ("trial-001", "completed", "")
    ]
    assert outcome["study"] == str(record.parent.parent)

"""A run whose registry does not answer is kept in a folder, and brought to the registry whole and once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import PlatformError
from cytoray_services.registry import Registry
from cytoray_services.registry.offline_run import deliver, has_kept
from cytoray_services.settings import Settings, load_settings

NOBODY = "http://127.0.0.1:9"  # the discard service, which no machine runs


@pytest.fixture
def here(registry_home: Path) -> Settings:
    return load_settings({"CYTORAY_HOME": str(registry_home)})


@pytest.fixture
def away(here: Settings) -> Settings:
    return here.model_copy(update={"tracking_uri": NOBODY})


def record(run: Any, picture: Path) -> None:
    with run:
        run.log_metrics({"loss": 2.0}, step=1)
        run.log_metrics({"loss": 1.0}, step=2)
        run.set_tags({"colour": "green"})
        run.log_text("# Recipe\n", "recipe.md")
        run.log_file(picture, "pictures")
        run.keep_registration("cells", {"ap50": 0.5})


def facts(settings: Settings, run_id: str) -> dict[str, Any]:
    with Registry.open(settings)._connection.client() as client:
        run = client.get_run(run_id)
        losses = [(metric.step, metric.value) for metric in client.get_metric_history(run_id, "loss")]
        files = [file.path for folder in (None, "pictures") for file in client.list_artifacts(run_id, folder)]
        return {
            "params": run.data.params,
            "colour": run.data.tags.get("colour"),
            "status": run.info.status,
            "losses": losses,
            "files": sorted(files),
        }


WHOLE = {
    "params": {"epochs": "3"},
    "colour": "green",
    "status": "FINISHED",
    "losses": [(1, 2.0), (2, 1.0)],
    "files": ["pictures", "pictures/curve.png", "recipe.md"],
}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "curve.png"
    path.write_bytes(b"picture")
    return path


def test_without_a_folder_to_keep_it_in_the_run_does_not_start(away: Settings) -> None:
    with pytest.raises(PlatformError, match="does not answer"):
        Registry.open(away).start_run("cells", "first")


def test_a_run_that_never_reached_the_registry_arrives_whole(
    here: Settings, away: Settings, tmp_path: Path, picture: Path
) -> None:
    kept = tmp_path / "kept"
    run = Registry.open(away).start_run("cells", "first", {"epochs": 3}, keep=kept)
    assert run.run_id == ""
    record(run, picture)
    picture.unlink()
    with pytest.raises(PlatformError):
        deliver(Registry.open(away).start_run, kept)
    assert has_kept(kept)

    run_id, model = deliver(Registry.open(here).start_run, kept)

    assert facts(here, run_id) == WHOLE
    assert model == {"name": "cells", "metrics": {"ap50": 0.5}}
    assert not kept.exists()


def test_a_registry_that_goes_away_in_between_gets_the_rest_later(
    here: Settings, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    registry = Registry.open(here)
    run = registry.start_run("cells", "first", {"epochs": 3}, keep=kept)
    assert not has_kept(kept)
    monkeypatch.setattr(registry._connection, "uri", NOBODY)
    record(run, picture)
    assert has_kept(kept)

    run_id, _ = deliver(Registry.open(here).start_run, kept)

    assert run_id == run.run_id
    assert facts(here, run_id) == WHOLE


def test_a_delivery_that_is_cut_off_goes_on_where_it_was(
    here: Settings, away: Settings, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    record(Registry.open(away).start_run("cells", "first", {"epochs": 3}, keep=kept), picture)
    registry = Registry.open(here)
    start_run = registry.start_run

    def one_that_fails_later(*arguments: Any, **named: Any) -> Any:
        run = start_run(*arguments, **named)
        monkeypatch.setattr(run, "log_file", lambda *rest: (_ for _ in ()).throw(PlatformError("gone again")))
        return run

    with monkeypatch.context() as patched:
        patched.setattr(registry, "start_run", one_that_fails_later)
        with pytest.raises(PlatformError, match="gone again"):
            deliver(registry.start_run, kept)

    run_id, _ = deliver(registry.start_run, kept)

    assert facts(here, run_id) == WHOLE  # each loss once
    with registry._connection.client() as client:
        (experiment,) = client.search_experiments(filter_string="name = 'cells'")
        assert len(client.search_runs([experiment.experiment_id])) == 1


def test_starting_again_brings_what_was_kept(here: Settings, away: Settings, tmp_path: Path, picture: Path) -> None:
    kept = tmp_path / "kept"
    record(Registry.open(away).start_run("cells", "first", {"epochs": 3}, keep=kept), picture)
    run = Registry.open(here).start_run("cells", "first", {"epochs": 3}, keep=kept)
    run.end()
    assert facts(here, run.run_id) == WHOLE
    assert not has_kept(kept)

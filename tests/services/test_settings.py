"""Settings come from three environment variables and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from cytoray_analysis.errors import RequestError
from cytoray_services.settings import load_settings


def test_without_variables_the_state_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings({})
    assert settings.home == tmp_path / ".cytoray"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/.cytoray/mlflow.db"


def test_reading_the_settings_writes_nothing(tmp_path: Path) -> None:
    load_settings({"CYTORAY_HOME": str(tmp_path / "home")})
    assert list(tmp_path.iterdir()) == []


def test_a_relative_home_is_made_absolute_for_workers_that_start_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({"CYTORAY_HOME": "state"}).home == tmp_path / "state"


def test_a_server_named_by_the_variable_is_the_registry(tmp_path: Path) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": "http://mlflow:5000"})
    assert settings.tracking_uri == "http://mlflow:5000"


def test_empty_variables_count_as_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({"CYTORAY_HOME": "", "MLFLOW_TRACKING_URI": ""}) == load_settings({})


def test_a_file_in_place_of_the_home_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("")
    with pytest.raises(RequestError, match=str(path)) as caught:
        load_settings({"CYTORAY_HOME": str(path)})
    assert caught.value.field == "CYTORAY_HOME"
    assert caught.value.hint


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path)})
    with pytest.raises(ValidationError, match="frozen"):
        settings.tracking_uri = "sqlite://"  # type: ignore[misc]

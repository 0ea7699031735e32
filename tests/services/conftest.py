"""What the tests of the services share: a registry whose tables are there already."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cytoray_services.registry import Registry
from cytoray_services.settings import load_settings


@pytest.fixture(scope="session")
def registry_without_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the tables of a registry once: that takes longer than most tests."""
    home = tmp_path_factory.mktemp("registry")
    assert Registry.open(load_settings({"CYTORAY_HOME": str(home)})).list() == ()
    return home


@pytest.fixture
def registry_home(registry_without_models: Path, cytoray_home: Path) -> Path:
    """Give the test a state folder of its own, as `cytoray_home` does, with an empty registry in it."""
    return Path(shutil.copytree(registry_without_models, cytoray_home))

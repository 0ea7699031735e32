"""What the tests of the services share: a registry whose tables are there already."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cytoray_services.registry import Registry
from cytoray_services.settings import load_settings
from registry_stores import STORES, Servers, Store, open_store, start_servers


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


@pytest.fixture(scope="session")
def registry_servers() -> Iterator[Servers]:
    """Start PostgreSQL and S3 once, or skip visibly where they are not installed."""
    with start_servers() as servers:
        yield servers


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, registry_home: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return an empty registry, once of each kind."""
    made = open_store(request, registry_home)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made

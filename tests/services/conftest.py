"""What the tests of the services share: an empty registry of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_stores import STORES, Servers, Store, open_store, start_servers


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

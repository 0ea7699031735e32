"""A model that follows the registry, without Ray."""

import asyncio
import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import CytorayError, ModelNotFoundError
from cytoray_services.registry import Registry
from cytoray_services.settings import Settings, load_settings
from cytoray_serving.exchange import Answer, Question
from cytoray_serving.replica import ModelServer, ReplicaOptions
from serving_samples import GOOD

OPTIONS = ReplicaOptions(threads=1, poll_seconds=0.1)


@pytest.fixture
def settings(registered: Path, tmp_path: Path) -> Settings:
    return load_settings({"CYTORAY_HOME": str(shutil.copytree(registered, tmp_path / "home"))})


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry.open(settings)


@pytest.fixture
def server(registry: Registry, settings: Settings) -> Iterator[ModelServer]:
    server = ModelServer("nuclei@champion", settings, OPTIONS)
    yield server
    server.close()


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.05)


def answer(server: ModelServer) -> Answer:
    found = asyncio.run(server.answer(Question(GOOD)))
    assert not isinstance(found, CytorayError), found
    return found


def test_an_answer_names_the_registered_model(server: ModelServer) -> None:
    found = answer(server)
    assert (found.name, found.version) == ("nuclei", "1")
    assert server.status().registry == "following"


def test_a_moved_alias_is_followed_there_and_back(server: ModelServer, registry: Registry) -> None:
    first = answer(server)
    registry.promote("nuclei", "2")
    wait_until(lambda: server.status().version == "2")
    second = answer(server)
    assert second.version == "2"
    assert second.digest != first.digest
    registry.rollback("nuclei")
    wait_until(lambda: server.status().version == "1")
    assert answer(server).digest == first.digest


def test_requests_while_the_alias_moves_are_all_answered(server: ModelServer, registry: Registry) -> None:
    async def ask_while_moving() -> set[str | None]:
        versions = set()
        moved = asyncio.create_task(asyncio.to_thread(registry.promote, "nuclei", "2"))
        while "2" not in versions:
            found = await server.answer(Question(GOOD))
            assert isinstance(found, Answer)
            versions.add(found.version)
        await moved
        return versions

    assert asyncio.run(asyncio.wait_for(ask_while_moving(), 30)) == {"1", "2"}


def test_a_version_that_is_damaged_does_not_take_over(
    server: ModelServer, registry: Registry, settings: Settings
) -> None:
    folder = registry.fetch(registry.resolve("nuclei/2"))
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + bytes(8))
    registry.promote("nuclei", "2")
    wait_until(lambda: server.status().registry.startswith("stays"))
    assert answer(server).version == "1"
    registry.promote("nuclei", "1")
    wait_until(lambda: server.status().registry == "following")


def test_what_is_loaded_answers_while_the_registry_is_gone(server: ModelServer, settings: Settings) -> None:
    with contextlib.closing(sqlite3.connect(settings.home / "mlflow.db", isolation_level=None)) as database:
        database.execute("ALTER TABLE registered_models RENAME TO away")
        wait_until(lambda: server.status().registry.startswith("stays"))
        assert answer(server).version == "1"
        database.execute("ALTER TABLE away RENAME TO registered_models")
    wait_until(lambda: server.status().registry == "following")


def test_a_version_by_number_is_not_followed(registry: Registry, settings: Settings) -> None:
    server = ModelServer("nuclei/2", settings, OPTIONS)
    assert answer(server).version == "2"
    assert server.status().registry == "fixed"
    server.close()


def test_a_bundle_folder_is_served_as_it_is(bundle_folder: Path, settings: Settings) -> None:
    server = ModelServer(str(bundle_folder), settings, OPTIONS)
    assert answer(server).version is None
    assert server.status().registry == "fixed"
    server.close()


def test_a_model_that_does_not_exist_is_not_served(registry: Registry, settings: Settings) -> None:
    with pytest.raises(ModelNotFoundError):
        ModelServer("nothing", settings, OPTIONS)


def test_requests_with_objects_go_alone(folders: Any, settings: Settings) -> None:
    server = ModelServer(str(folders.cells), settings, OPTIONS)

    async def ask_at_once(*questions: Question) -> list[int]:
        answers = await asyncio.gather(*(server.answer(question) for question in questions))
        return [one.batch for one in answers if isinstance(one, Answer)]

    boxes = Question(GOOD, boxes="[[10, 5, 22, 15]]")
    assert asyncio.run(ask_at_once(*[boxes] * 6)) == [1] * 6
    assert max(asyncio.run(ask_at_once(*[Question(GOOD)] * 12))) > 1
    server.close()

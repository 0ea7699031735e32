"""The routing table over a real registry: aliases that move, damage, a registry that is away."""

import asyncio
import contextlib
import sqlite3
from typing import Any

import pytest

from cytoray_analysis.errors import CytorayError, ModelNotFoundError, PlatformError, RequestError
from cytoray_services.free_ports import free_port
from cytoray_services.registry import Registry
from cytoray_services.settings import Settings
from cytoray_serving.messages import Question
from cytoray_serving.schema import ModelStatus
from cytoray_serving.service.assembly import Assembled
from serving_in_process import InProcess, config_of, in_process
from serving_samples import GOOD


@pytest.fixture
def service(settings: Settings) -> Assembled:
    return in_process(settings, config_of(["nuclei@champion"]))


def status(service: Assembled, model: str = "nuclei", version: str | None = None) -> ModelStatus:
    return asyncio.run(service.dispatch.status(model, version))


def followed(service: Assembled) -> ModelStatus:
    """Look at the registry once."""
    before = status(service)
    asyncio.run(service.routes.follow())
    assert before.reference == status(service).reference
    return status(service)


def version_that_answers(service: Assembled, model: str = "nuclei", version: str | None = None) -> str | None:
    return asyncio.run(service.dispatch.answer(model, version, Question(GOOD))).version


@pytest.mark.slow
def test_a_moved_alias_is_followed_there_and_back(service: Assembled, registry: Registry) -> None:
    assert status(service).registry == "following"
    first = version_that_answers(service)
    registry.promote("nuclei", "2")
    assert followed(service).version == "2"
    second = version_that_answers(service)
    registry.rollback("nuclei")
    assert followed(service).version == "1"
    assert (first, second, version_that_answers(service)) == ("1", "2", "1")


@pytest.mark.slow
def test_a_new_version_is_ready_before_it_answers(settings: Settings, registry: Registry) -> None:
    prepared: list[str] = []

    class Watched(InProcess):
        async def prepare(self, reference: str) -> None:
            assert (await watched.dispatch.status("nuclei", None)).version == "1"
            prepared.append(reference)
            await super().prepare(reference)

    watched = in_process(settings, config_of(["nuclei@champion"]), Watched(settings))
    status(watched)
    registry.promote("nuclei", "2")
    assert followed(watched).version == "2"
    assert prepared == [registry.resolve("nuclei/2").exact_reference]


@pytest.mark.slow
def test_requests_while_the_alias_moves_are_all_answered(service: Assembled, registry: Registry) -> None:
    async def ask_while_moving() -> set[str | None]:
        versions: set[str | None] = set()
        moved = asyncio.create_task(asyncio.to_thread(registry.promote, "nuclei", "2"))
        while "2" not in versions:
            versions.add((await service.dispatch.answer("nuclei", None, Question(GOOD))).version)
            await service.routes.follow()
        await moved
        return versions

    assert asyncio.run(asyncio.wait_for(ask_while_moving(), 30)) == {"1", "2"}


@pytest.mark.slow
def test_a_version_that_is_damaged_does_not_take_over(
    service: Assembled, registry: Registry, settings: Settings
) -> None:
    status(service)
    folder = registry.fetch(registry.resolve("nuclei/2"))
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + bytes(8))
    registry.promote("nuclei", "2")
    assert followed(service).registry.startswith("keeps the loaded version")
    assert version_that_answers(service) == "1"
    registry.promote("nuclei", "1")
    assert followed(service).registry == "following"


@pytest.mark.slow
def test_what_is_loaded_answers_while_the_registry_is_gone(service: Assembled, settings: Settings) -> None:
    assert version_that_answers(service) == "1"
    with contextlib.closing(sqlite3.connect(settings.home / "mlflow.db", isolation_level=None)) as database:
        database.execute("ALTER TABLE registered_models RENAME TO away")
        assert followed(service).registry.startswith("keeps the loaded version")
        assert version_that_answers(service) == "1"
        database.execute("ALTER TABLE away RENAME TO registered_models")
    assert followed(service).registry == "following"


@pytest.mark.slow
def test_a_service_that_starts_without_the_registry_takes_the_version_that_it_knew(
    service: Assembled, settings: Settings
) -> None:
    assert version_that_answers(service) == "1"
    away = Settings(home=settings.home, tracking_uri=f"http://127.0.0.1:{free_port()}")
    again = in_process(away, config_of(["nuclei@champion"]))
    assert version_that_answers(again) == "1"
    assert followed(again).registry.startswith("keeps the loaded version")
    with pytest.raises(PlatformError):
        status(again, "nuclei@candidate")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "version"), [("nuclei", "2"), ("nuclei@2", None)])
def test_a_version_is_found_by_its_number_and_not_followed(service: Assembled, model: str, version: str | None) -> None:
    assert version_that_answers(service, model, version) == "2"
    assert status(service, model, version).registry == "fixed"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nucleoli", "nuclei@nothing", "nuclei@99", "Ü", "../nuclei"])
def test_what_no_one_registered_is_not_found(service: Assembled, name: str) -> None:
    for _ in range(2):  # the second time from memory
        with pytest.raises(ModelNotFoundError):
            status(service, name)


@pytest.mark.slow
def test_without_shared_replicas_only_the_named_models_answer(settings: Settings, folders: Any) -> None:
    Registry.open(settings).register(folders.stain, "stain", alias="champion")
    service = in_process(settings, config_of(["nuclei@champion"], shared=None))
    assert version_that_answers(service, "nuclei", "2") == "2"
    with pytest.raises(ModelNotFoundError):
        status(service, "stain")


@pytest.mark.slow
def test_shared_replicas_answer_with_any_registered_model(settings: Settings, folders: Any) -> None:
    service = in_process(settings, config_of(["nuclei@champion"]))
    Registry.open(settings).register(folders.stain, "stain", alias="champion")
    assert status(service, "stain").kind == "image"
    references = [one.reference for one in asyncio.run(service.dispatch.statuses())]
    assert references == ["nuclei@champion", "stain"]


@pytest.mark.slow
def test_a_pipeline_is_asked_by_its_name(settings: Settings, folders: Any) -> None:
    for name, folder in (("cells", folders.cells), ("stain", folders.stain)):
        Registry.open(settings).register(folder, name, alias="champion")
    pipelines = {"count": ("nuclei", "cells"), "all": ("stain", "nuclei", "cells")}
    service = in_process(settings, config_of(["nuclei@champion"], pipelines=pipelines))
    found = asyncio.run(service.dispatch.answer("count", None, Question(GOOD)))
    assert (found.kind, found.steps) == ("class", ("nuclei/1",))
    assert found.objects > 0
    assert status(service, "count").steps == ["nuclei/1"]
    three = asyncio.run(service.dispatch.answer("all", None, Question(GOOD)))
    assert three.steps == ("stain/1", "nuclei/1")


@pytest.mark.slow
def test_a_pipeline_whose_first_model_answers_with_classes_is_refused(settings: Settings, folders: Any) -> None:
    Registry.open(settings).register(folders.cells, "cells", alias="champion")
    service = in_process(settings, config_of(["nuclei@champion"], pipelines={"wrong": ("cells", "nuclei")}))
    with pytest.raises(RequestError, match="labels or images before another model, got cells"):
        asyncio.run(service.dispatch.answer("wrong", None, Question(GOOD)))


@pytest.mark.slow
def test_a_pipeline_whose_first_model_cannot_read_the_image_says_so(settings: Settings, folders: Any) -> None:
    Registry.open(settings).register(folders.cells, "cells", alias="champion")
    service = in_process(settings, config_of(["nuclei@champion"], pipelines={"count": ("nuclei", "cells")}))
    with pytest.raises(CytorayError, match="known format"):
        asyncio.run(service.dispatch.answer("count", None, Question(b"no image")))

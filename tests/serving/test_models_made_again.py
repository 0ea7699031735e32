"""A model that is deleted and made again, whose versions count from 1 again, never answers with old weights."""

import asyncio
from pathlib import Path

import pytest

from cytoray_analysis.errors import ModelNotFoundError
from cytoray_services.free_ports import free_port
from cytoray_services.registry import Registry, load_bundle
from cytoray_services.settings import Settings
from cytoray_serving.messages import Question
from cytoray_serving.replica.replica import exact_reference
from cytoray_serving.service.assembly import Assembled
from serving_in_process import config_of, in_process
from serving_samples import GOOD


@pytest.fixture
def digests(registry: Registry) -> tuple[str, str]:
    """Return the digests of the two versions there are."""
    first, second = registry.resolve("nuclei/1").digest, registry.resolve("nuclei/2").digest
    assert first != second
    return first, second


def make_again(registry: Registry, alias: str = "champion") -> None:
    """Delete the model, and register what was its second version as the first one of another model of that name."""
    from mlflow import MlflowClient

    folder = registry.fetch(registry.resolve("nuclei/2"))
    MlflowClient(tracking_uri=registry.settings.tracking_uri).delete_registered_model("nuclei")
    version = Registry.open(registry.settings).register(folder, "nuclei", alias=alias)
    assert version.version == "1"


def digest_that_answers(service: Assembled, model: str = "nuclei", version: str | None = None) -> str:
    return asyncio.run(service.dispatch.answer(model, version, Question(GOOD))).digest


@pytest.mark.slow
@pytest.mark.parametrize(("model", "version"), [("nuclei", None), ("nuclei", "1"), ("nuclei@1", None)])
def test_what_a_service_has_loaded_gives_way_after_a_look_at_the_registry(
    settings: Settings, registry: Registry, digests: tuple[str, str], model: str, version: str | None
) -> None:
    service = in_process(settings, config_of(["nuclei@champion"]))
    assert digest_that_answers(service, model, version) == digests[0]
    make_again(registry)
    asyncio.run(service.routes.follow())
    assert digest_that_answers(service, model, version) == digests[1]
    status = asyncio.run(service.dispatch.status(model, version))
    assert (status.version, status.digest) == ("1", digests[1])
    assert status.registry == ("following" if (model, version) == ("nuclei", None) else "fixed")


@pytest.mark.slow
def test_a_model_that_is_served_by_its_number_gives_way_too(
    settings: Settings, registry: Registry, digests: tuple[str, str]
) -> None:
    service = in_process(settings, config_of(["nuclei/1"]))
    assert digest_that_answers(service) == digests[0]
    make_again(registry)
    asyncio.run(service.routes.follow())
    assert digest_that_answers(service) == digests[1]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "version"), [("nuclei", None), ("nuclei", "1")])
def test_a_service_that_starts_afterwards_does_not_take_what_another_one_has_left_on_disk(
    settings: Settings, registry: Registry, digests: tuple[str, str], model: str, version: str | None
) -> None:
    assert digest_that_answers(in_process(settings, config_of(["nuclei@champion"])), model, version) == digests[0]
    make_again(registry)
    assert digest_that_answers(in_process(settings, config_of(["nuclei@champion"])), model, version) == digests[1]
    away = Settings(home=settings.home, tracking_uri=f"http://127.0.0.1:{free_port()}")
    assert digest_that_answers(in_process(away, config_of(["nuclei@champion"])), model, version) == digests[1]


@pytest.mark.slow
def test_a_canary_of_the_model_before_is_none_of_the_new_one(
    settings: Settings, registry: Registry, digests: tuple[str, str]
) -> None:
    from cytoray_services.rollouts.changes import start_rollout

    start_rollout(registry, "nuclei", "2")
    service = in_process(settings, config_of(["nuclei@champion"]))
    digest_that_answers(service)
    asyncio.run(service.routes.follow())
    make_again(registry)
    asyncio.run(service.routes.follow())
    route = asyncio.run(service.routes.find("nuclei", keys=(0.0, 0.0)))
    assert route.target.exact == f"nuclei/1#{digests[1]}"
    assert not route.watched


@pytest.mark.slow
def test_a_job_is_refused_whose_model_is_another_one_by_now(
    settings: Settings, registry: Registry, digests: tuple[str, str]
) -> None:
    service = in_process(settings, config_of(["nuclei@champion"]))
    steps = asyncio.run(service.routes.exact("nuclei", None))
    assert steps == (f"nuclei/1#{digests[0]}",)
    assert load_bundle(steps[0], settings)[0].digest == digests[0]
    make_again(registry)
    with pytest.raises(ModelNotFoundError, match="deleted and created again with the same name"):
        load_bundle(steps[0], settings)
    # A replica that has them may go on with those very weights, under their own name.
    assert load_bundle(exact_reference("nuclei/1", settings), settings, known=True)[0].digest in digests


@pytest.mark.slow
def test_what_is_loaded_stays_where_the_model_made_again_is_damaged(
    settings: Settings, registry: Registry, digests: tuple[str, str]
) -> None:
    service = in_process(settings, config_of(["nuclei@champion"]))
    digest_that_answers(service)
    damaged = Path(registry.fetch(registry.resolve("nuclei/2"))) / "weights.safetensors"
    make_again(registry)
    damaged.write_bytes(damaged.read_bytes()[:-8] + bytes(8))
    asyncio.run(service.routes.follow())
    status = asyncio.run(service.dispatch.status("nuclei", None))
    assert status.registry.startswith("keeps the loaded version")
    assert status.digest == digests[0]

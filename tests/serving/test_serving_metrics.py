"""What a gateway tells Prometheus that nobody's request tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from cytoray_services.settings import Settings
from cytoray_services.storage.allowed import Allowed
from cytoray_serving.service.assembly import Assembled
from cytoray_serving.service.config import ModelConfig, Replicas
from serving_in_process import InProcess, asker, config_of, in_process
from serving_samples import GOOD


class Silent(InProcess):
    """A replica that does not answer."""

    async def alive(self) -> bool:
        return False


def told(service: Assembled, name: str, **labels: str) -> float | None:
    return service.metrics.get_sample_value(name, labels)


def after(service: Assembled, holds: Callable[[], bool]) -> bool:
    """Run the service's background until something holds, for some seconds at most."""

    async def run() -> bool:
        async with service.api.router.lifespan_context(service.api):
            for _ in range(100):
                await asyncio.sleep(0.05)
                if holds():
                    return True
        return False

    return asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize(("replica", "ready"), [(InProcess, 1.0), (Silent, 0.0)])
def test_a_gateway_states_whether_a_model_has_a_replica_that_answers(
    settings: Settings, replica: type[InProcess], ready: float
) -> None:
    service = in_process(settings, config_of(["nuclei@champion"]), replica(settings))
    assert after(service, lambda: told(service, "cytoray_model_ready", model="nuclei") == ready)


def test_a_bundle_folder_is_reported_as_well(settings: Settings, bundle_folder: Path) -> None:
    service = in_process(settings, config_of([str(bundle_folder)]), Silent(settings))
    assert after(service, lambda: told(service, "cytoray_model_ready", model="nuclei") == 0)


@pytest.mark.slow
def test_a_model_that_may_have_no_replica_is_not_reported(settings: Settings) -> None:
    models = (ModelConfig(model="nuclei", replicas=Replicas(min_replicas=0, max_replicas=1)),)
    service = in_process(settings, config_of([]).model_copy(update={"models": models}), Silent(settings))
    assert after(service, lambda: told(service, "cytoray_jobs", kind="bulk", state="queued") == 0)
    assert told(service, "cytoray_model_ready", model="nuclei") is None


@pytest.mark.slow
def test_bulk_jobs_are_counted_by_state(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tif").write_bytes(GOOD)
    config = config_of(["nuclei@champion"], allowed=Allowed(roots=(str(tmp_path),)))
    service = in_process(settings, config)
    places = {"input": f"file://{tmp_path}/in", "output": f"file://{tmp_path}/out"}
    assert asker(service)("POST", "/models/nuclei/jobs", json=places).status_code == 202
    assert after(service, lambda: told(service, "cytoray_jobs", kind="bulk", state="queued") == 1)
    assert told(service, "cytoray_jobs", kind="bulk", state="running") == 0

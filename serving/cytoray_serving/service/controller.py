"""The controller of a service, one for any number of gateways.

It leads rollouts, starts the drivers of jobs and removes expired images.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cytoray_analysis.errors import PlatformError
from cytoray_services.registry import Registry, parse_reference
from cytoray_services.rollouts.controller import Report, RolloutController
from cytoray_serving.gateway.route import Served
from cytoray_serving.jobs.drivers import Drivers
from cytoray_serving.jobs.store import JobStore
from cytoray_serving.service.config import ServiceConfig
from cytoray_serving.service.warmth import SharedUse, WarmthRecord, warmth_folder
from cytoray_serving.viewer.store import ImageStore

if TYPE_CHECKING:
    from cytoray_services.settings import Settings

log = logging.getLogger(__name__)

_LEAD_SECONDS = 2.0
_EXPIRED_SECONDS = 300.0


class ServiceController:
    """The controller, one process per service.

    Parameters
    ----------
    served
        Models with dedicated replicas.
    deployments
        The reference of each deployment of replicas, or ``shared``, by the name of the deployment.
    """

    def __init__(
        self,
        served: Sequence[Served],
        settings: Settings,
        config: ServiceConfig,
        deployments: Mapping[str, str],
    ) -> None:
        import ray

        names = {parse_reference(one.reference).name for one in served if one.registered}
        self._rollouts = RolloutController(Registry.open(settings), names)
        self._drivers = Drivers(
            JobStore(settings.home / "jobs"),
            settings,
            ray.get_runtime_context().gcs_address,
            max_concurrent=config.jobs.max_concurrent,
            keep_days=config.jobs.keep_days,
        )
        self._drivers.start()
        self._warmth = WarmthRecord(warmth_folder(settings), lambda: _running(deployments))
        self._warmth.start()
        self._images = ImageStore(settings.home / "images", config.viewer)
        threading.Thread(target=self._lead, name="rollouts", daemon=True).start()
        threading.Thread(target=self._remove_images, name="images", daemon=True).start()

    async def report(self, reports: Sequence[Report | SharedUse]) -> None:
        """Record observations of canaries, shadows and traffic from a gateway."""
        self._rollouts.observe(one for one in reports if not isinstance(one, SharedUse))
        for one in reports:
            if isinstance(one, SharedUse):
                self._warmth.used(one)

    def _lead(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LEAD_SECONDS):
            try:
                self._rollouts.step(datetime.now(UTC))
            except Exception:
                log.exception("leading the rollouts failed, trying again")

    def _remove_images(self) -> None:
        pause = threading.Event()
        while not pause.wait(_EXPIRED_SECONDS):
            try:
                if count := self._images.remove_expired():
                    log.info("%d stored images have expired and were removed", count)
            except OSError:
                log.exception("removing expired images failed, trying again")


class RemoteController:
    """The controller behind a Ray Serve handle, for gateways."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def report(self, reports: Sequence[Report | SharedUse]) -> None:
        """Send observations of canaries, shadows and traffic.

        Raises
        ------
        PlatformError
            The controller is restarting.
        """
        from grpc import RpcError  # type: ignore[import-untyped]
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

        try:
            await self._handle.report.remote(list(reports))
        except (RayActorError, DeploymentUnavailableError, BackPressureError, RpcError) as error:
            raise PlatformError(
                "the controller of the service is restarting", hint="try again in a few seconds"
            ) from error


def _running(deployments: Mapping[str, str]) -> dict[str, int] | None:
    """Return the number of running replicas by reference; None while the service starts or stops."""
    from ray import serve

    applications = [one for one in serve.status().applications.values() if one.status in ("RUNNING", "UNHEALTHY")]
    if not applications:
        return None
    return {
        deployments[name]: sum(count for state, count in one.replica_states.items() if state == "RUNNING")
        for application in applications
        for name, one in application.deployments.items()
        if name in deployments
    }

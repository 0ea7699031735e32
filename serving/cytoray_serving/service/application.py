"""What a service consists of: models with their names, and one Ray Serve application of all its deployments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_analysis.kinds import TruthKind, task_kind
from cytoray_services.tokens.tokens import read_tokens
from cytoray_serving.gateway.route import SHARED, Served
from cytoray_serving.service.autoscaling import scaling
from cytoray_serving.service.config import ModelConfig, ServiceConfig, SharedConfig
from cytoray_serving.service.controller import ServiceController
from cytoray_serving.service.deployments import Gateway, Replica
from cytoray_serving.service.warmth import COLD, Warmth
from cytoray_serving.viewer.viewer import Viewer

if TYPE_CHECKING:
    from cytoray_services.settings import Settings

_ONGOING = 16  # requests that a replica holds
_VIEWER_ONGOING = 256  # tiles are small, and each gateway stores few images at a time
_GATEWAY_ONGOING = 4096  # the gateway has its own limits, in megapixels and bytes
_VERSIONS_HELD = 3  # by a replica of one model: the champion, a canary, a shadow


def name_models(references: Sequence[str], bundle_names: Mapping[str, str] | None = None) -> tuple[Served, ...]:
    """Return the names of every reference in addresses.

    ``nuclei@champion`` is at ``/models/nuclei@champion``, ``nuclei/3`` at ``/models/nuclei@3``, a bundle folder at the
    name in its specification; the first reference of a model also has the plain name of the model.

    Parameters
    ----------
    references
        References to serve.
    bundle_names
        Names of the references that are bundle folders.

    Raises
    ------
    RequestError
        Two references have the same name.
    """
    taken: set[str] = set()
    served: list[Served] = []
    for reference in references:
        exact = (bundle_names or {}).get(reference) or reference.replace("/", "@")
        free = tuple(name for name in dict.fromkeys((exact, exact.partition("@")[0])) if name not in taken)
        if exact in taken:
            raise RequestError(
                f"expected a different name for each model, got {exact!r} twice, also for {reference}",
                field="model",
                hint="serve each model once",
            )
        taken.update(free)
        served.append(Served(reference, free))
    return tuple(served)


def served_models(config: ServiceConfig, settings: Settings) -> tuple[tuple[Served, ...], list[TruthKind]]:
    """Look up `config.models`, so that errors appear before anything starts; return the kinds of their answers."""
    from cytoray_services.registry import load_bundle

    references = [one.model for one in config.models]
    bundles = {reference: load_bundle(reference, settings, known=True) for reference in dict.fromkeys(references)}
    folders = {reference: bundle.spec.name for reference, (bundle, version) in bundles.items() if version is None}
    served = tuple(
        replace(one, reference=str(Path(one.reference).absolute()), registered=False)
        if one.reference in folders
        else one
        for one in name_models(references, folders)
    )
    return served, [task_kind(bundles[reference][0].spec.task.name).truth for reference in references]


def require_tokens(path: Path) -> None:
    """Refuse to start a service that has no tokens but requires them."""
    if not path.exists():
        raise MissingFileError(
            f"expected tokens in {path}, which does not exist",
            field="tokens",
            hint="create one with cytoray tokens create NAME --scope predict, or serve this machine only with "
            "--insecure-local",
        )
    read_tokens(path)


def build_application(
    served: Sequence[Served], *, settings: Settings, config: ServiceConfig, warmth: Warmth = COLD
) -> Any:
    """Build the Ray Serve application: gateways, bound to one deployment per model and a shared deployment.

    Parameters
    ----------
    served
        The models of `config.models`, in order.
    warmth
        What the previous service kept warm; this one loads it before it is ready.
    """
    from ray import serve

    names: dict[str, str] = {}

    def deployment(reference: str, name: str, models: ModelConfig | SharedConfig, held: int) -> Any:
        names[name] = reference
        before = warmth.replicas.get(reference, 0)
        loaded = warmth.shared if reference == SHARED else (reference,)
        # Configured models must load or the replica fails; models that were warm may fail to load.
        required = reference != SHARED and (models.replicas.min_replicas > 0 or not before)
        return serve.deployment(
            name=name,
            max_ongoing_requests=_ONGOING,
            max_queued_requests=config.limits.waiting_requests,
            ray_actor_options=models.resources.options,
            graceful_shutdown_timeout_s=30,
            health_check_period_s=5,
            **scaling(models.replicas, before),
        )(Replica).bind(
            loaded if required else (),
            held,
            settings,
            models.run,
            loaded if before and not required else (),
        )

    handles = {
        one.reference: deployment(
            one.reference, f"model-{number}-{one.names[0].replace('@', '-')}", model, _VERSIONS_HELD
        )
        for number, (one, model) in enumerate(zip(served, config.models, strict=True))
    }
    if config.shared is not None:
        handles[SHARED] = deployment(SHARED, SHARED, config.shared, config.shared.models)
    controller = serve.deployment(
        name="service-controller", max_ongoing_requests=256, ray_actor_options={"num_cpus": 0}
    )(ServiceController)
    viewer = serve.deployment(
        name="viewer",
        max_ongoing_requests=_VIEWER_ONGOING,
        ray_actor_options={"num_cpus": config.viewer.cpus},
        **config.viewer.scaling,
    )(Viewer)
    nodes = {} if config.gateway_nodes is None else {config.gateway_nodes: 1.0}
    alone: dict[str, Any] = {} if config.metrics_port is None else {"max_replicas_per_node": 1}
    gateway = serve.deployment(
        name="gateway",
        num_replicas=config.gateways,
        max_ongoing_requests=_GATEWAY_ONGOING,
        ray_actor_options={"num_cpus": 0, "resources": nodes},
        **alone,
    )(serve.ingress()(Gateway))
    behind = controller.bind(tuple(served), settings, config, names)
    drawing = viewer.bind(settings, config.viewer, config.largest_image)
    return gateway.bind(handles, behind, drawing, tuple(served), settings, config, warmth.shared)

"""The service on Ray Serve: one deployment per model, one gateway in front, started and stopped as a whole."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytoray_analysis.errors import CytorayError, PlatformError, RequestError
from cytoray_analysis.tasks import TruthKind, truth_of
from cytoray_serving.exchange import Answer, Question
from cytoray_serving.gateway import LARGEST_BODY, create_api
from cytoray_serving.replica import ModelServer, ReplicaOptions
from cytoray_serving.schema import ModelStatus

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cytoray_services.settings import Settings

log = logging.getLogger(__name__)

APPLICATION = "cytoray"
# By the kind of the answers: what is sent, and where the default form goes.
_EXAMPLES: dict[TruthKind, str] = {
    "labels": "-o labels.tif --data-binary @image.tif",
    "image": "-o stain.ome.tif --data-binary @image.tif",
    "class": "-F image=@image.tif -F masks=@masks.tif",
    "lineage": "-o lineage.zip -F image=@movie.tif -F masks=@masks.tif",
}
_ONGOING = 16
_QUEUED = 256


@dataclass(frozen=True)
class Served:
    """One reference, and the names that it has in addresses, the first being its own."""

    reference: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes
    ----------
    url
        Where the gateway listens.
    models
        What it serves.
    example
        A command that asks the first of them.
    folder
        Sockets and settings of its HAProxy; removed at the end.
    """

    url: str
    models: tuple[Served, ...]
    example: str
    folder: Path

    def stop(self) -> None:
        """Finish the requests at work, stop Ray Serve and the Ray instance."""
        stop_service(self.folder)


def name_models(references: Sequence[str], bundle_names: Mapping[str, str] | None = None) -> tuple[Served, ...]:
    """Give every reference its names in addresses.

    ``nuclei@champion`` is found at ``/models/nuclei@champion``, ``nuclei/3`` at ``/models/nuclei@3``, a bundle
    folder under the name that it was written with; the first reference of a model also has the model's bare name.

    Parameters
    ----------
    references
        What to serve.
    bundle_names
        Names of those references that are bundle folders.

    Raises
    ------
    RequestError
        There are none, or two of them would have the same names.
    """
    if not references:
        raise RequestError("expected at least one model to serve, got none", field="model")
    taken: set[str] = set()
    served: list[Served] = []
    for reference in references:
        exact = (bundle_names or {}).get(reference) or reference.replace("/", "@")
        free = tuple(name for name in dict.fromkeys((exact, exact.partition("@")[0])) if name not in taken)
        if exact in taken:
            raise RequestError(
                f"{reference} would be served as {exact!r}, which is taken",
                field="model",
                hint="serve each model once",
            )
        taken.update(free)
        served.append(Served(reference, free))
    return tuple(served)


def prepare_environment() -> Path:
    """Set Ray Serve's switches; must run before anything imports Ray, and is inherited by Ray's processes.

    HAProxy in front and the throughput switches take an empty request from 3.3 to 0.7 ms (docs/benchmarks.md). Their
    ports and sockets are fixed by default; each instance gets its own here, so that several run beside each other.
    Whatever is set already is kept.

    Returns
    -------
    Path
        The folder of those sockets, for :func:`stop_service` to remove.
    """
    folder = tempfile.mkdtemp(prefix="cytoray-serve-")
    switches = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        # Deployments speak gRPC to each other then, at most 4 MB a message by default: half an image.
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
        # Half a minute each by default, which no balancer on this machine waits for.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
        # Workers run at niceness 15 by default, behind every other program of the machine.
        "RAY_worker_niceness": "0",
        # Warnings and faults of replicas belong on the terminal of whoever runs the service.
        "RAY_SERVE_LOG_TO_STDERR": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    for name, value in switches.items():
        os.environ.setdefault(name, value)
    return Path(folder)


def start_service(
    references: Sequence[str],
    *,
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    options: ReplicaOptions | None = None,
    largest_body: int = LARGEST_BODY,
) -> Service:
    """Start a Ray instance on this machine and serve models from it.

    Parameters
    ----------
    references
        Models: ``name``, ``name@alias``, ``name/version`` or a bundle folder.
    settings
        Where the registry is.
    host, port
        Where to listen; port 0 takes a free one.
    replicas
        Copies of each model.
    options
        How models are run; by default each copy gets its share of the cores.
    largest_body
        Bytes of the largest request body.

    Raises
    ------
    ModelNotFoundError, BundleError, RequestError
        A model cannot be served; found out before anything starts.
    PlatformError
        The address cannot be listened on, or Ray does not start.
    """
    from cytoray_services.registry import load_bundle

    bundles = {reference: load_bundle(reference, settings) for reference in dict.fromkeys(references)}
    folders = {reference: bundle.spec.name for reference, (bundle, version) in bundles.items() if version is None}
    served = tuple(
        replace(one, reference=str(Path(one.reference).absolute())) if one.reference in folders else one
        for one in name_models(references, folders)
    )
    _require_free(host, port)
    port = port or free_port(host)
    copies = replicas * len(served)
    cores = os.cpu_count() or 1
    options = options or ReplicaOptions()
    if options.threads is None:
        options = options.model_copy(update={"threads": max(1, cores // copies)})

    folder = prepare_environment()
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions
    from ray.serve.schema import LoggingConfig

    try:
        # Logical cores: every copy finds a place, however few cores there are.
        ray.init(
            address="local",
            num_cpus=max(cores, copies + 1),
            include_dashboard=False,
            log_to_driver=True,
            logging_level=logging.WARNING,
            _node_ip_address="127.0.0.1" if host in ("127.0.0.1", "localhost") else None,
        )
        gpus = _graphics_cards()
        quiet = LoggingConfig(log_level="ERROR", enable_access_log=False)
        serve.start(http_options=HTTPOptions(host=host, port=port), logging_config=quiet)
        application = build_application(
            served,
            settings=settings,
            replicas=replicas,
            options=options,
            largest_body=largest_body,
            gpus_per_replica=min(1.0, gpus / copies),
        )
        serve.run(application, name=APPLICATION, route_prefix="/", logging_config=quiet)
    except (RuntimeError, ConnectionError, ValueError) as error:
        stop_service(folder)
        if isinstance(error, CytorayError):
            raise
        raise PlatformError(
            f"the service did not start: {error}", hint="the log above says why; cytoray doctor checks the machine"
        ) from error
    except BaseException:
        stop_service(folder)
        raise
    shown = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not listened on
    url = f"http://{shown}:{port}"
    kind = truth_of(bundles[references[0]][0].spec.task.name)
    return Service(url, served, example_request(url, served[0].names[-1], kind), folder)


def example_request(url: str, name: str, kind: TruthKind) -> str:
    """Return a command for the shell that asks a model whose answers are of a kind."""
    return f"curl {_EXAMPLES[kind]} {url}/models/{name}/predict"


def stop_service(folder: Path) -> None:
    """Stop Ray Serve and the Ray instance of this process, and remove the folder of its sockets."""
    import ray
    from ray import serve

    if ray.is_initialized():
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def build_application(
    served: Sequence[Served],
    *,
    settings: Settings,
    replicas: int,
    options: ReplicaOptions,
    largest_body: int,
    gpus_per_replica: float = 0.0,
) -> Any:
    """Describe the service as a Ray Serve application: the gateway, bound to one deployment per model."""
    from ray import serve

    models = {}
    for number, one in enumerate(served):
        deployment = serve.deployment(
            name=f"model-{number}-{one.names[0].replace('@', '-')}",
            num_replicas=replicas,
            max_ongoing_requests=_ONGOING,
            max_queued_requests=_QUEUED,
            ray_actor_options={"num_cpus": 1, "num_gpus": gpus_per_replica},
            graceful_shutdown_timeout_s=30,
        )(Replica).bind(one.reference, settings, options)
        models.update(dict.fromkeys(one.names, deployment))
    gateway = serve.deployment(name="gateway", max_ongoing_requests=_QUEUED, ray_actor_options={"num_cpus": 0})(
        serve.ingress()(Gateway)
    )
    return gateway.bind(models, largest_body)


class Replica:
    """A :class:`ModelServer` in a process of its own."""

    def __init__(self, reference: str, settings: Settings, options: ReplicaOptions) -> None:
        self._server = ModelServer(reference, settings, options)

    async def answer(self, question: Question) -> Answer | CytorayError:
        """Answer one question."""
        return await self._server.answer(question)

    async def status(self) -> ModelStatus:
        """Describe what is loaded."""
        return self._server.status()


class Gateway:
    """The HTTP application in a process of its own."""

    def __init__(self, handles: Mapping[str, Any], largest_body: int) -> None:
        different = {id(handle): RemoteModel(handle) for handle in handles.values()}
        self._models = {name: different[id(handle)] for name, handle in handles.items()}
        self._largest_body = largest_body

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the application once the handles are there; called by Ray Serve."""
        return create_api(self._models, largest_body=self._largest_body)


class RemoteModel:
    """A model behind a Ray Serve handle, as the gateway calls it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def answer(self, question: Question) -> Answer | CytorayError:
        """Answer one question; an overloaded or lost replica is a PlatformError."""
        return await self._call(self._handle.answer.remote(question))  # type: ignore[no-any-return]

    async def status(self) -> ModelStatus:
        """Describe what is loaded."""
        return await self._call(self._handle.status.remote())  # type: ignore[no-any-return]

    async def _call(self, response: Any) -> Any:
        from grpc import RpcError  # type: ignore[import-untyped]
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

        try:
            return await response
        except BackPressureError as error:
            raise PlatformError("the model has as many requests waiting as it takes", hint="try again later") from error
        except (RayActorError, DeploymentUnavailableError, RpcError) as error:
            log.warning("a replica was lost: %s", error)
            raise PlatformError("the model is starting again", hint="try again in a few seconds") from error


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _graphics_cards() -> float:
    import ray

    return float(ray.cluster_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]


def _require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise PlatformError(
                f"cannot listen on {host}:{port}: {error}",
                field="port",
                hint="choose another --port, or 0 for a free one",
            ) from error

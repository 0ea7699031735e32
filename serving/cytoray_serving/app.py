"""The service on Ray Serve: deployments of models, gateways in front, started and stopped as a whole."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from cytoray_analysis.errors import CytorayError, MissingFileError, PlatformError, RequestError
from cytoray_analysis.tasks import TruthKind, truth_of
from cytoray_services.jobs.ray_start import start_ray
from cytoray_services.tokens import read_tokens, tokens_path
from cytoray_serving.autoscaling import scaling
from cytoray_serving.cluster import ENVIRONMENT
from cytoray_serving.deployments import Gateway, Replica
from cytoray_serving.front.limits import ADDRESS, Front, FrontLimits
from cytoray_serving.open_inference.grpc import SERVICER
from cytoray_serving.routes import SHARED, Served
from cytoray_serving.service_config import ModelConfig, ServiceConfig, SharedConfig, fitted
from cytoray_serving.steward import Steward

if TYPE_CHECKING:
    from cytoray_services.settings import Settings

APPLICATION = "cytoray"
# By the kind of the answers: what is sent, and where the default form goes.
_EXAMPLES: dict[TruthKind, str] = {
    "labels": "-o labels.tif --data-binary @image.tif",
    "image": "-o stain.ome.tif --data-binary @image.tif",
    "class": "-F image=@image.tif -F masks=@masks.tif",
    "lineage": "-o lineage.zip -F image=@movie.tif -F masks=@masks.tif",
}
_PROCESSES = ("gcs_server", "raylet")  # children of the command, on which all others depend
_OWN = "127.0.0.1"
_OWN_ADDRESSES = (_OWN, "localhost", "::1")
_READY_SECONDS = 300.0
_ONGOING = 16  # requests that a replica holds
_GATEWAY_ONGOING = 4096  # the gateway has limits of its own, in megapixels and bytes
_VERSIONS_HELD = 3  # by a replica of one model: the champion, a canary, a shadow


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
    grpc
        ``host:port`` where gRPC is spoken; None for nowhere.
    """

    url: str
    models: tuple[Served, ...]
    example: str
    folder: Path
    grpc: str | None = None

    def stop(self) -> None:
        """Finish the requests at work, stop Ray Serve and the Ray instance."""
        stop_service(self.folder)

    def require_ray(self) -> None:
        """Look whether Ray's own processes run.

        Raises
        ------
        PlatformError
            One has ended: nothing is restarted or asked without it. All that is left of the service is ended, too.
        """
        started = {one.name(): one for one in psutil.Process().children()}
        gone = [name for name in _PROCESSES if name not in started or started[name].status() == psutil.STATUS_ZOMBIE]
        if gone:
            for one in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            shutil.rmtree(self.folder, ignore_errors=True)
            raise PlatformError(
                f"the service has ended: {gone[0]}, a process of Ray, was killed or has failed",
                hint="start it again; docs/guides/serving.md has a unit that does so by itself",
            )


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
        Two of them would have the same names.
    """
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


def prepare_environment(largest_body: int, front: FrontLimits, host: str) -> Path:
    """Set Ray Serve's switches; must run before anything imports Ray, and is inherited by Ray's processes.

    Ports and sockets are fixed by default; each instance gets its own here, so that several run beside each other.
    Whatever is set already is kept.

    Parameters
    ----------
    largest_body
        Bytes of the largest message over gRPC.
    front, host
        Limits of the front, and where it listens; gateways themselves listen on this machine's own address.

    Returns
    -------
    Path
        The folder of those sockets, for :func:`stop_service` to remove.
    """
    folder = tempfile.mkdtemp(prefix="cytoray-serve-")
    switches = ENVIRONMENT | {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(largest_body + 2**20),
        # Half a minute each by default, which no balancer on this machine waits for.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
    }
    switches |= Front(front, secrets.token_urlsafe(32), host).variables()
    switches |= {"RAY_SERVE_HAPROXY_BINARY_PATH": haproxy_launcher(), ADDRESS: _OWN}
    for name, value in switches.items():
        os.environ.setdefault(name, value)
    return Path(folder)


def haproxy_launcher() -> str:
    """Return the program that Ray Serve starts in place of HAProxy: see :mod:`cytoray_serving.front.launcher`.

    Raises
    ------
    PlatformError
        It is not installed beside this Python.
    """
    found = Path(sys.executable).with_name("cytoray-haproxy")
    if not found.exists():
        raise PlatformError(
            f"expected {found}, which starts the proxy of the service, and it is not there",
            hint="install Cytoray again: pip install -e '.[serve]'",
        )
    return str(found)


def start_service(
    config: ServiceConfig,
    *,
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8000,
    grpc_port: int | None = None,
) -> Service:
    """Start a Ray instance on this machine and serve models from it.

    Parameters
    ----------
    config
        What to serve. Replicas that do not say how many cores they use get their share of them.
    settings
        Where the registry is.
    host, port
        Where to listen; port 0 takes a free one.
    grpc_port
        Where the Open Inference Protocol is spoken over gRPC, too; None for nowhere.

    Raises
    ------
    ModelNotFoundError, BundleError, RequestError, MissingFileError
        A model cannot be served, or there are no tokens; found out before anything starts.
    PlatformError
        The address cannot be listened on, or Ray does not start.
    """
    served, kinds = served_models(config, settings)
    if not config.insecure_local:
        require_tokens(config.tokens or tokens_path(settings))
    _require_free(host, port)
    port = port or free_port(host)
    if grpc_port is not None:
        _require_free(host, grpc_port)
        grpc_port = grpc_port or free_port(host)
    cores = os.cpu_count() or 1
    most = sum(one.replicas.most for one in config.models) + (config.shared.replicas.most if config.shared else 0)
    least = sum(one.replicas.least for one in config.models)
    folder = prepare_environment(config.limits.body_megabytes * 2**20, config.front, host)
    from ray import serve
    from ray.serve.config import HTTPOptions, gRPCOptions
    from ray.serve.schema import LoggingConfig

    try:
        # Logical cores: every copy finds a place, however few cores there are.
        start_ray(
            num_cpus=max(cores, most + config.jobs.workers + 2),
            include_dashboard=False,
            log_to_driver=True,
            logging_level=logging.WARNING,
            _node_ip_address=_OWN if host in _OWN_ADDRESSES else None,
        )
        config = fitted(
            config,
            gpus=min(1.0, _graphics_cards() / max(1, most)),
            threads=max(1, cores // max(1, least)),
            job_threads=max(1, cores // config.jobs.workers),
        )
        quiet = LoggingConfig(log_level="ERROR", enable_access_log=False)
        grpc = None if grpc_port is None else gRPCOptions(port=grpc_port, grpc_servicer_functions=[SERVICER])
        serve.start(http_options=HTTPOptions(host=_OWN, port=port), grpc_options=grpc, logging_config=quiet)
        application = build_application(served, settings=settings, config=config)
        serve.run(application, name=APPLICATION, route_prefix="/", logging_config=quiet)
        shown = _shown(host)
        _require_ready(f"http://{shown}:{port}")
    except CytorayError:
        stop_service(folder)
        raise
    except (RuntimeError, ConnectionError, TimeoutError, ValueError) as error:
        stop_service(folder)
        raise PlatformError(
            f"the service did not start: {error}", hint="the log above says why; cytoray doctor checks the machine"
        ) from error
    except BaseException:
        stop_service(folder)
        raise
    url = f"http://{shown}:{port}"
    name, kind = (served[0].names[-1], kinds[0]) if served else ("MODEL", "labels")
    example = example_request(url, name, kind, token=not config.insecure_local)
    return Service(url, served, example, folder, None if grpc_port is None else f"{shown}:{grpc_port}")


def served_models(config: ServiceConfig, settings: Settings) -> tuple[tuple[Served, ...], list[TruthKind]]:
    """Find what `config.models` names, so that a mistake is told before anything starts; the kinds of their answers."""
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
    return served, [truth_of(bundles[reference][0].spec.task.name) for reference in references]


def require_tokens(path: Path) -> None:
    """Refuse to start a service that nobody could ask."""
    if not path.exists():
        raise MissingFileError(
            f"expected tokens in {path}, which does not exist",
            field="tokens",
            hint="make one with cytoray tokens create NAME --scope predict, or serve this machine alone with "
            "--insecure-local",
        )
    read_tokens(path)


def example_request(url: str, name: str, kind: TruthKind, *, token: bool) -> str:
    """Return a command for the shell that asks a model whose answers are of a kind."""
    header = "-H 'Authorization: Bearer TOKEN' " if token else ""
    return f"curl {header}{_EXAMPLES[kind]} {url}/models/{name}/predict"


def stop_service(folder: Path) -> None:
    """Stop Ray Serve and the Ray instance of this process, and remove the folder of its sockets."""
    import ray
    from ray import serve

    if ray.is_initialized():
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def build_application(served: Sequence[Served], *, settings: Settings, config: ServiceConfig) -> Any:
    """Describe the service as a Ray Serve application: gateways, bound to one deployment per model and the shared one.

    Parameters
    ----------
    served
        Those of `config.models`, in their order.
    """
    from ray import serve

    def deployment(name: str, models: ModelConfig | SharedConfig, preloaded: Sequence[str], held: int) -> Any:
        return serve.deployment(
            name=name,
            max_ongoing_requests=_ONGOING,
            max_queued_requests=config.limits.waiting_requests,
            ray_actor_options=models.needs.options,
            graceful_shutdown_timeout_s=30,
            health_check_period_s=5,
            **scaling(models.replicas),
        )(Replica).bind(tuple(preloaded), held, settings, models.run)

    handles = {
        one.reference: deployment(
            f"model-{number}-{one.names[0].replace('@', '-')}", model, [one.reference], _VERSIONS_HELD
        )
        for number, (one, model) in enumerate(zip(served, config.models, strict=True))
    }
    if config.shared is not None:
        handles[SHARED] = deployment(SHARED, config.shared, (), config.shared.models)
    steward = serve.deployment(name="steward", max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})(Steward)
    nodes = {} if config.gateway_nodes is None else {config.gateway_nodes: 1.0}
    alone: dict[str, Any] = {} if config.metrics_port is None else {"max_replicas_per_node": 1}
    gateway = serve.deployment(
        name="gateway",
        num_replicas=config.gateways,
        max_ongoing_requests=_GATEWAY_ONGOING,
        ray_actor_options={"num_cpus": 0, "resources": nodes},
        **alone,
    )(serve.ingress()(Gateway))
    return gateway.bind(handles, steward.bind(tuple(served), settings, config), tuple(served), settings, config)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nothing listens on."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _graphics_cards() -> float:
    import ray

    return float(ray.cluster_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]


def _shown(host: str) -> str:
    """Return a host as addresses name it."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        return _OWN
    return f"[{host}]" if ":" in host else host


def _require_ready(url: str) -> None:
    """Wait until every model that keeps a replica answers through the front, as callers will ask it.

    Raises
    ------
    PlatformError
        None does within five minutes.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    ends, said = time.monotonic() + _READY_SECONDS, ""
    while time.monotonic() < ends:
        try:
            with direct.open(f"{url}/health/ready", timeout=10):
                return
        except OSError as error:
            said = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else str(error)
        time.sleep(0.5)
    raise PlatformError(
        f"the models did not answer within {_READY_SECONDS:g} s: {said[:500]}", hint="the log above says why"
    )


def _require_free(host: str, port: int) -> None:
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise PlatformError(
                f"cannot listen on {host}:{port}: {error}",
                field="port",
                hint="choose another --port, or 0 for a free one",
            ) from error

"""The service on Ray Serve: gateways in front of deployments of models, started and stopped together."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from cytoray_analysis.errors import CytorayError, PlatformError
from cytoray_analysis.kinds import TruthKind
from cytoray_services.address_space import require_address_space
from cytoray_services.free_ports import family_of, free_port, free_ports
from cytoray_services.jobs.ray.own import SESSIONS, own_folder
from cytoray_services.jobs.ray.start import start_ray
from cytoray_services.tokens.tokens import tokens_path
from cytoray_serving.answers import answer_kind
from cytoray_serving.cluster import ENVIRONMENT
from cytoray_serving.front.limits import ADDRESS, Front, FrontLimits
from cytoray_serving.gateway.route import Served
from cytoray_serving.open_inference.grpc import SERVICER
from cytoray_serving.service.application import build_application, require_tokens, served_models
from cytoray_serving.service.config import ServiceConfig, fitted
from cytoray_serving.service.warmth import read_warmth, warmth_folder

if TYPE_CHECKING:
    from cytoray_services.settings import Settings

APPLICATION = "cytoray"
_PROCESSES = ("gcs_server", "raylet")  # child processes that all others depend on
_OWN = "127.0.0.1"
_READY_SECONDS = 300.0
# Images do not pass through it. By default Ray takes a third of the memory, and address space of each process.
_OBJECT_STORE = 2**30
# Below the folder: the folder of a node, with an ID of 56 letters; HAProxy adds ".12345.tmp" while it starts.
_SOCKETS_PART = len("/admin.sock.4194304.tmp") + 57


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes
    ----------
    url
        Address of the gateway.
    models
        The served models.
    example
        A command that sends a request to the first model.
    folder
        Sockets and settings of HAProxy, and the files of Ray; removed at the end.
    grpc
        ``host:port`` of gRPC; None without gRPC.
    """

    url: str
    models: tuple[Served, ...]
    example: str
    folder: Path
    grpc: str | None = None

    def stop(self) -> None:
        """Finish running requests, then stop Ray Serve and the Ray instance."""
        stop_service(self.folder)

    def require_ray(self) -> None:
        """Check that Ray's own processes run.

        Raises
        ------
        PlatformError
            One has ended: without it nothing is restarted. The rest of the service is stopped as well.
        """
        started = {one.name(): one for one in psutil.Process().children()}
        gone = [name for name in _PROCESSES if name not in started or started[name].status() == psutil.STATUS_ZOMBIE]
        if gone:
            for one in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            raise PlatformError(
                f"the service has ended: {gone[0]}, a process of Ray, failed or was killed",
                hint="start it again (docs/guides/serving.md has a systemd unit that does so automatically); "
                f"Ray's logs are in {self.folder / SESSIONS}",
            )


def prepare_environment(largest_body: int, front: FrontLimits, host: str) -> Path:
    """Set the environment variables of Ray Serve. Must run before anything imports Ray; Ray's processes inherit them.

    Ports and sockets are fixed by default; here each instance gets its own, so that several can run on one machine.
    Variables that are set already are kept.

    Parameters
    ----------
    largest_body
        Maximum size of a gRPC message in bytes.
    front, host
        Limits of the front and its address; gateways themselves listen on the loopback address.

    Returns
    -------
    Path
        The folder of the sockets and of Ray's files; :func:`stop_service` removes it.
    """
    folder = own_folder(_SOCKETS_PART)
    metrics, statistics, http, grpc = free_ports(4)
    switches = ENVIRONMENT | {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc),
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(largest_body + 2**20),
        # Half a minute each by default; no load balancer on this machine needs it.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
    }
    switches |= Front(front, secrets.token_urlsafe(32), host).variables()
    switches |= {"RAY_SERVE_HAPROXY_BINARY_PATH": haproxy_launcher(), ADDRESS: _OWN}
    for name, value in switches.items():
        os.environ.setdefault(name, value)
    return folder


def haproxy_launcher() -> str:
    """Return the program that Ray Serve starts instead of HAProxy: see :mod:`cytoray_serving.front.launcher`.

    Raises
    ------
    PlatformError
        It is not installed in the environment of this Python.
    """
    found = Path(sys.executable).with_name("cytoray-haproxy")
    if not found.exists():
        raise PlatformError(
            f"expected the program {found}, which starts the proxy of the service, but it does not exist",
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
        What to serve. Replicas without a number of cores get an equal share.
    settings
        Location of the registry.
    host, port
        Address to listen on; port 0 for a free one.
    grpc_port
        Port of the Open Inference Protocol over gRPC; None for HTTP only.

    Raises
    ------
    ModelNotFoundError, BundleError, RequestError, MissingFileError
        A model cannot be served, or there are no tokens; raised before anything starts.
    PlatformError
        The address is not available, the limit of virtual memory is too low, or Ray does not start.
    """
    require_address_space()
    served, kinds = served_models(config, settings)
    if not config.insecure_local:
        require_tokens(config.tokens or tokens_path(settings))
    _require_free(host, port)
    port = port or free_port(host)
    if grpc_port is not None:
        _require_free(host, grpc_port)
        grpc_port = grpc_port or free_port(host)
    cores = os.cpu_count() or 1
    shared = config.shared.replicas.max_replicas if config.shared else 0
    most = sum(one.replicas.max_replicas for one in config.models) + shared
    least = sum(one.replicas.min_replicas for one in config.models)
    folder = prepare_environment(config.limits.body_megabytes * 2**20, config.front, host)
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.config import HTTPOptions, gRPCOptions
    from ray.serve.schema import LoggingConfig

    try:
        # Logical cores: every replica is scheduled, also with few physical cores.
        start_ray(
            folder,
            num_cpus=max(cores, most + config.jobs.workers + 2),
            include_dashboard=False,
            log_to_driver=True,
            logging_level=logging.WARNING,
            object_store_memory=_OBJECT_STORE,
        )
        config = fitted(
            config,
            gpus=min(1.0, _graphics_cards() / max(1, most)),
            threads=max(1, cores // max(1, least)),
            job_threads=max(1, cores // config.jobs.workers),
        )
        quiet = LoggingConfig(log_level="ERROR", enable_access_log=False)
        grpc = None if grpc_port is None else gRPCOptions(port=grpc_port, grpc_servicer_functions=[SERVICER])
        _wait_longer_for_proxies()
        serve.start(http_options=HTTPOptions(host=_OWN, port=port), grpc_options=grpc, logging_config=quiet)
        warmth = read_warmth(warmth_folder(settings))
        application = build_application(served, settings=settings, config=config, warmth=warmth)
        serve.run(application, name=APPLICATION, route_prefix="/", logging_config=quiet)
        shown = _shown(host)
        _require_ready(f"http://{shown}:{port}")
    except CytorayError:
        stop_service()
        raise
    except (RayError, RuntimeError, ConnectionError, TimeoutError, ValueError) as error:
        stop_service()
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise PlatformError(
            f"the service did not start: {said}",
            hint=f"see the log above; run cytoray doctor to check the machine; Ray's logs are in {folder / SESSIONS}",
        ) from error
    except BaseException:
        stop_service()
        raise
    url = f"http://{shown}:{port}"
    name, kind = (served[0].names[-1], kinds[0]) if served else ("MODEL", "labels")
    example = example_request(url, name, kind, token=not config.insecure_local)
    return Service(url, served, example, folder, None if grpc_port is None else f"{shown}:{grpc_port}")


def example_request(url: str, name: str, kind: TruthKind, *, token: bool) -> str:
    """Return a shell command that sends a request to a model with answers of this kind."""
    header = "-H 'Authorization: Bearer TOKEN' " if token else ""
    return f"curl {header}{answer_kind(kind).example} {url}/models/{name}/predict"


def stop_service(folder: Path | None = None) -> None:
    """Stop Ray Serve and the Ray instance of this process; remove their folder if given."""
    import ray
    from ray import serve

    if ray.is_initialized():
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _graphics_cards() -> float:
    import ray

    return float(ray.cluster_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]


def _wait_longer_for_proxies() -> None:
    """Replace the minute that Ray Serve waits for its proxy, a constant, which a busy machine exceeds."""
    from ray.serve._private import api, client

    for module in (api, client):
        module.HTTP_PROXY_TIMEOUT = _READY_SECONDS  # type: ignore[attr-defined]


def _shown(host: str) -> str:
    """Return a host in the form for URLs."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        return _OWN
    return f"[{host}]" if ":" in host else host


def _require_ready(url: str) -> None:
    """Wait until every model with a permanent replica answers through the front, as for callers.

    Raises
    ------
    PlatformError
        They do not within five minutes.
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
        f"the models did not answer within {_READY_SECONDS:g} s: {said[:500]}", hint="see the log above"
    )


def _require_free(host: str, port: int) -> None:
    with socket.socket(family_of(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise PlatformError(
                f"cannot listen on {host}:{port}: {error}",
                field="port",
                hint="choose another --port, or 0 for a free one",
            ) from error

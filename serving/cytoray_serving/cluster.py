"""The service on an existing Ray cluster, such as a RayService on Kubernetes, for the config file of Ray Serve.

    applications:
      - name: cytoray
        import_path: cytoray_serving.cluster:application
        args: {config: /etc/cytoray/service.yaml}

The containers of the cluster set :data:`ENVIRONMENT`. All of them can read the file, the state
folder and, if the service requires tokens, the token file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cytoray_services.settings import load_settings
from cytoray_services.tokens.tokens import tokens_path
from cytoray_serving.service.application import build_application, require_tokens, served_models
from cytoray_serving.service.config import fitted, read_config
from cytoray_serving.service.warmth import read_warmth, warmth_folder

HOOK = "cytoray_serving.front.hook:middlewares"

# HAProxy in front and the throughput switches take an empty request from 3.3 to 0.7 ms (docs/benchmarks.md).
ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",
    # Deployments then use gRPC, with at most 4 MB a message by default: half an image.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(2**31 - 1),
    # By default workers run at niceness 15, with a lower priority than every other program of the machine.
    "RAY_worker_niceness": "0",
    # Warnings and errors of replicas go to the terminal of the service.
    "RAY_SERVE_LOG_TO_STDERR": "1",
    # Ten times a second by default, which takes 4 % of a core.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.4",
    # Ten seconds by default, longer than a burst.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": HOOK,
    # Three failures replace a proxy; ten seconds each by default.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # 5 and 30 seconds by default, too few on a busy machine: the proxy would be killed during its start.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "120",
    # Processes connect to each other by gRPC, never through the proxy in http_proxy.
    "grpc_proxy": "",
}


class Arguments(BaseModel):
    """Arguments in the config of Ray Serve.

    Attributes
    ----------
    config
        A :class:`~cytoray_serving.service.config.ServiceConfig` as a YAML file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Path


def application(arguments: dict[str, Any]) -> Any:
    """Build the application for Ray Serve.

    Parameters
    ----------
    arguments
        See :class:`Arguments`.

    Raises
    ------
    ModelNotFoundError, BundleError, RequestError, MissingFileError
        A model cannot be served, or there are no tokens; Ray Serve shows the error as the status of the application.
    """
    settings = load_settings()
    config = fitted(read_config(Arguments.model_validate(arguments).config), gpus=0.0, threads=None, job_threads=None)
    if not config.insecure_local:
        require_tokens(config.tokens or tokens_path(settings))
    served, _ = served_models(config, settings)
    warmth = read_warmth(warmth_folder(settings))
    return build_application(served, settings=settings, config=config, warmth=warmth)

"""The service on a Ray cluster that runs already, such as a RayService on Kubernetes: what Serve's own config names.

    applications:
      - name: cytoray
        import_path: cytoray_serving.cluster:application
        args: {config: /etc/cytoray/service.yaml}

The cluster's containers set :data:`ENVIRONMENT`, and all of them see the file, the state
folder and, where the service asks for tokens, their file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

HOOK = "cytoray_serving.front.hook:middlewares"

# HAProxy in front and the throughput switches take an empty request from 3.3 to 0.7 ms (docs/benchmarks.md).
ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",
    # Deployments speak gRPC to each other then, at most 4 MB a message by default: half an image.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(2**31 - 1),
    # Workers run at niceness 15 by default, behind every other program of the machine.
    "RAY_worker_niceness": "0",
    # Warnings and faults of replicas belong on the terminal of whoever runs the service.
    "RAY_SERVE_LOG_TO_STDERR": "1",
    # Ten times a second by default, which costs 4 % of a core.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.4",
    # Ten seconds by default, in which a burst would be over.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": HOOK,
    # Three that fail replace a proxy; ten seconds each by default.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # Processes speak gRPC to each other, never through the proxy that http_proxy names.
    "grpc_proxy": "",
}


class Arguments(BaseModel):
    """What Serve's config gives.

    Attributes
    ----------
    config
        A :class:`~cytoray_serving.service_config.ServiceConfig` as a YAML file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Path


def application(arguments: dict[str, Any]) -> Any:
    """Build the application that Ray Serve runs.

    Parameters
    ----------
    arguments
        See :class:`Arguments`.

    Raises
    ------
    ModelNotFoundError, BundleError, RequestError, MissingFileError
        A model cannot be served, or there are no tokens; Serve shows it as the status of the application.
    """
    from cytoray_services.settings import load_settings
    from cytoray_services.tokens import tokens_path
    from cytoray_serving.app import build_application, require_tokens, served_models
    from cytoray_serving.service_config import fitted, read_config

    settings = load_settings()
    config = fitted(read_config(Arguments.model_validate(arguments).config), gpus=0.0, threads=None, job_threads=None)
    if not config.insecure_local:
        require_tokens(config.tokens or tokens_path(settings))
    served, _ = served_models(config, settings)
    return build_application(served, settings=settings, config=config)

"""Opens the backend that ``--on`` names."""

from __future__ import annotations

from cytoray_analysis.errors import RequestError
from cytoray_services.jobs.backend import JobBackend
from cytoray_services.settings import Settings

HINT = (
    "use local, ray://HOST:PORT, http://HOST:8265, kubernetes, kubernetes:CONTEXT, kubernetes:CONTEXT/NAMESPACE or "
    "service:URL"
)


def open_backend(on: str, settings: Settings, *, code: bool = False) -> JobBackend:
    """Open a backend by its name.

    Parameters
    ----------
    on
        ``local``, ``ray://HOST:PORT``, ``http(s)://HOST:8265`` (Ray's job API), ``kubernetes[:CONTEXT[/NAMESPACE]]`` or
        ``service:URL`` (Cytoray's jobs service).
    code
        Whether the packages of this installation are sent with each job and take precedence over those of the cluster.

    Raises
    ------
    RequestError
        The name is invalid.
    PlatformError
        A required package is not installed, or the backend does not answer.
    """
    kind, _, rest = on.partition(":")
    if on == "local" or kind in ("ray", "http", "https"):
        from cytoray_services.jobs.ray.backend import open_ray

        return open_ray(on, settings, code=code)
    if kind == "kubernetes":
        from cytoray_services.jobs.kubernetes.backend import open_kubernetes

        return open_kubernetes(rest, code=code)
    if kind == "service" and rest.startswith(("http://", "https://")):
        from cytoray_services.jobs.service_backend import ServiceBackend

        if code:
            raise RequestError("the jobs service runs its own code", field="--code", hint="remove --code")
        return ServiceBackend(rest)
    raise RequestError(f"expected a backend for jobs, got {on!r}", field="--on", hint=HINT)

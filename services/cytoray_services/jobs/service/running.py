"""The process of the jobs service."""

from __future__ import annotations

import logging
from pathlib import Path

from cytoray_analysis.errors import RequestError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_GRACE_SECONDS = 10


def serve_jobs(path: Path, *, host: str, port: int, insecure_local: bool) -> None:
    """Run the service until the process is asked to end.

    Parameters
    ----------
    path
        File of the configuration.
    insecure_local
        Whether no token is required; only on the loopback address.

    Raises
    ------
    MissingFileError, RequestError
        The configuration, the tokens or the audit trail is missing or invalid.
    """
    import uvicorn
    from prometheus_client import CollectorRegistry

    from cytoray_services.jobs.opening import open_backend
    from cytoray_services.jobs.service.app import create_jobs_api
    from cytoray_services.jobs.service.audit import read_audit
    from cytoray_services.jobs.service.config import read_jobs_config
    from cytoray_services.jobs.service.door import PromptHeaders
    from cytoray_services.settings import load_settings
    from cytoray_services.tokens.access import Access
    from cytoray_services.tokens.tokens import TokenFile, tokens_path

    if insecure_local and host not in _LOOPBACK:
        raise RequestError(
            f"expected the loopback address with --insecure-local, got {host}",
            field="--host",
            hint="remove --insecure-local or --host",
        )
    settings, config = load_settings(), read_jobs_config(path)
    access = Access(None if insecure_local else TokenFile(config.tokens or tokens_path(settings)))
    if config.audit.exists():
        read_audit(config.audit)  # nothing is added to a trail that was changed
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    api = create_jobs_api(open_backend(config.place, settings), config, access=access, registry=CollectorRegistry())
    uvicorn.run(
        api, host=host, port=port, http=PromptHeaders, log_level="info", timeout_graceful_shutdown=_GRACE_SECONDS
    )

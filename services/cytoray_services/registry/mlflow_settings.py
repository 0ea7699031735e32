"""MLflow's settings for the requests of one thread, without the environment of the process.

MLflow reads its time limits from environment variables at every request. A process with threads cannot change them for
one: a variable that is removed while another thread reads the environment is an error there, and a short limit would
reach uploads of other threads. So the objects that read the variables return other values here where none is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

from cytoray_services.environment import default_environment

SECONDS_TO_ANSWER = 5
_quick: ContextVar[bool] = ContextVar("quick", default=False)


@contextmanager
def quick_requests() -> Iterator[None]:
    """Give up a request of this thread after :data:`SECONDS_TO_ANSWER`, without a second try.

    MLflow would retry for a quarter of an hour. A limit that the user has set stays.
    """
    token = _quick.set(True)
    try:
        yield
    finally:
        _quick.reset(token)


@cache
def prepare_mlflow() -> None:
    """Let MLflow follow :func:`quick_requests`, draw no progress bars and send no usage data; once per process."""
    # It sends usage data to its developers from its import on; here only if the user chose so.
    with default_environment(MLFLOW_DISABLE_TELEMETRY="true"):
        import mlflow  # noqa: F401

    from mlflow.environment_variables import (
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES,
        MLFLOW_HTTP_REQUEST_TIMEOUT,
    )

    for variable, value in ((MLFLOW_HTTP_REQUEST_TIMEOUT, SECONDS_TO_ANSWER), (MLFLOW_HTTP_REQUEST_MAX_RETRIES, 0)):
        variable.get = partial(_value, variable.is_set, variable.get, value)  # type: ignore[method-assign]
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.default = False


def _value(is_set: Callable[[], bool], usual: Callable[[], Any], quick: int) -> Any:
    return quick if _quick.get() and not is_set() else usual()

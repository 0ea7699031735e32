"""HTTP client of a Cytoray service: it sends the token and converts errors and invalid responses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from cytoray_analysis.errors import CytorayError, PlatformError, RequestError
from cytoray_services.http.errors import error_of_response

TOKEN = "CYTORAY_TOKEN"  # noqa: S105 - the name of a variable
Form = TypeVar("Form", bound=BaseModel)
_JSON: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class ServiceConnection:
    """A connection to one service. All failures raise a :class:`~cytoray_analysis.errors.CytorayError`.

    Parameters
    ----------
    url
        Address of the service.
    timeout
        Seconds to wait for a response.
    token
        Token of the caller; by default the variable ``CYTORAY_TOKEN``, if it is set.
    transport
        The transport; the network by default.
    field
        The name of the address in errors.

    Raises
    ------
    RequestError
        `url` is not an http or https address.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
        field: str = "url",
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise RequestError(f"expected an address such as http://127.0.0.1:8000, got {url!r}", field=field)
        self.url = url.rstrip("/")
        self._field = field
        token = token or os.environ.get(TOKEN)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        limits = httpx.Timeout(timeout, connect=10.0)
        try:
            self._http = httpx.Client(base_url=self.url, timeout=limits, headers=headers, transport=transport)
        except UnicodeEncodeError as error:
            raise RequestError("expected a token of ASCII letters and digits", field=TOKEN) from error
        except httpx.InvalidURL as error:
            raise RequestError(f"expected an address, got {url}: {error}", field=field) from error

    def send(self, method: str, path: str, **parts: Any) -> httpx.Response:
        """Send a request and return the response, if it is not an error."""
        with self._reported(path):
            response = self._http.request(method, path, **parts)
        if response.is_error:
            raise _refusal(response.status_code, response.content)
        return response

    @contextmanager
    def stream(
        self, path: str, *, seconds: float | None, headers: dict[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """Yield a streaming response, if it is not an error.

        Parameters
        ----------
        seconds
            Timeout between two pieces; None for no timeout.
        """
        timeout = httpx.Timeout(seconds, connect=10.0)
        with self._reported(path), self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if response.is_error:
                raise _refusal(response.status_code, response.read())
            yield response

    def get(self, form: type[Form], path: str) -> Form:
        """Send a GET request and parse the JSON response."""
        return self.parsed(form, self.send("GET", path).content, path)

    def json(self, method: str, path: str, **parts: Any) -> dict[str, Any]:
        """Send a request and return the JSON object of the response."""
        content = self.send(method, path, **parts).content
        try:
            return _JSON.validate_json(content)
        except ValidationError as error:
            raise self.foreign(path) from error

    def parsed(self, form: type[Form], content: str | bytes, path: str) -> Form:
        """Parse a JSON response of the service."""
        try:
            return form.model_validate_json(content)
        except ValidationError as error:
            raise self.foreign(path) from error

    def foreign(self, path: str) -> PlatformError:
        """Return the error for a response that is not from a Cytoray service."""
        return PlatformError(
            f"expected the response of a Cytoray service, {self.url} answered {path} with something else",
            field=self._field,
            hint="check the address, and that the service has the same release",
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @contextmanager
    def _reported(self, path: str) -> Iterator[None]:
        try:
            yield
        except httpx.InvalidURL as error:
            raise RequestError(f"expected an address, got {self.url}{path}: {error}", field=self._field) from error
        except httpx.TimeoutException as error:
            raise PlatformError(
                f"{self.url} did not answer in time", field=self._field, hint="try again later, or increase the timeout"
            ) from error
        except httpx.HTTPError as error:
            raise PlatformError(
                f"{self.url} does not answer: {error}",
                field=self._field,
                hint="check that the service runs: cytoray serve MODEL, or cytoray jobs serve --config FILE",
            ) from error


def _refusal(status: int, body: bytes) -> CytorayError:
    error = error_of_response(status, body)
    if error.field != "Authorization":
        return error
    return type(error)(error.message, field=TOKEN, hint=f"set {TOKEN} to a valid token of the service")

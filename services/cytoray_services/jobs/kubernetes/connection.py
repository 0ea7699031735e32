"""The interface to the `kubernetes` client: one namespace of a cluster, and the verbs that jobs need."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_services.jobs.kubernetes.errors import RefusedError

FIELD_MANAGER = "cytoray"
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
BACKOFF_SECONDS = 0.3  # before the second repetition; doubled each time
_PAGE = 500
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

JsonObject = dict[str, Any]


class Cluster:
    """An API server, for one namespace.

    Objects are plain mappings, as Kubernetes writes them. All methods raise RefusedError if the API server refuses,
    and PlatformError if it does not answer.

    Parameters
    ----------
    client
        ``kubernetes.client.ApiClient``. One from `connect` retries after too many requests, server errors and lost
        connections.
    namespace
        Namespace of the jobs.
    context
        Context of the kubeconfig; empty inside a cluster.
    """

    def __init__(self, client: Any, namespace: str, context: str = "") -> None:
        self.client = client
        self.namespace = namespace
        self.context = context

    def path(self, group: str, resource: str, name: str | None = None, *, part: str | None = None) -> str:
        """Return the address of a resource of the namespace, such as ``("ray.io/v1", "rayjobs", "nuclei-x7k2q")``."""
        root = "/api/v1" if group == "v1" else f"/apis/{group}"
        tail = [each for each in (name, part) if each is not None]
        return "/".join([f"{root}/namespaces/{self.namespace}/{resource}", *tail])

    def get(self, path: str, **query: str) -> JsonObject:
        """Read one object, or one page of a list."""
        return self._send("GET", path, query)

    def find(self, path: str) -> JsonObject | None:
        """Read one object; None if it does not exist."""
        try:
            return self.get(path)
        except RefusedError as refused:
            if refused.code == 404:
                return None
            raise

    def list(self, path: str, **query: str) -> tuple[list[JsonObject], str]:
        """Read all objects, page by page, and the version of the list, from which a watch can start."""
        items: list[JsonObject] = []
        token = ""
        while True:
            try:
                page = self.get(path, limit=str(_PAGE), **({"continue": token} if token else {}), **query)
            except RefusedError as refused:
                if refused.code == 410 and token:  # the version of the pages has expired: start again
                    items, token = [], ""
                    continue
                raise
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            token = metadata.get("continue") or ""
            if not token:
                return items, metadata.get("resourceVersion") or ""

    def create(self, path: str, body: Mapping[str, Any]) -> JsonObject:
        """Create an object, also one that is a request, such as an access review."""
        return self._send("POST", path, {}, body)

    def apply(self, path: str, body: Mapping[str, Any]) -> JsonObject:
        """Create or change an object so that it has these fields: server-side apply, never by force."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return self._send("PATCH", path, query, body, "application/apply-patch+yaml")

    def merge(self, path: str, body: Mapping[str, Any]) -> JsonObject:
        """Change some fields of an object."""
        return self._send("PATCH", path, {"fieldManager": FIELD_MANAGER}, body, "application/merge-patch+json")

    def delete(self, path: str) -> None:
        """Delete an object and then all that it owns; a missing object is not an error."""
        try:
            self._send("DELETE", path, {"propagationPolicy": "Background"})
        except RefusedError as refused:
            if refused.code != 404:
                raise

    def lines(self, path: str, *, seconds: float, **query: str) -> Iterator[str]:
        """Yield a response line by line, until it ends, the connection is lost, or `seconds` pass without data."""
        from urllib3.exceptions import HTTPError

        response = self._request("GET", path, query, seconds=seconds)
        if response.status >= 400:
            raise _refused(response.status, response.response.data)
        rest = b""
        try:
            for piece in response.response.stream(amt=None, decode_content=True):
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    yield line.decode(errors="replace")
            if rest:
                yield rest.decode(errors="replace")
        except HTTPError:
            return  # the caller reconnects
        finally:
            response.response.close()
            response.response.release_conn()

    def wait_for_change(self, path: str, version: str, *, seconds: float, **query: str) -> None:
        """Return when a list changes after `version`, or when `seconds` have passed.

        The caller reads what changed; a watch with an expired version (410) ends in the same way.
        """
        watch = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(max(1, round(seconds)))}
        try:
            for line in self.lines(path, seconds=seconds + READ_SECONDS, **watch, **query):
                if json.loads(line).get("type") != "BOOKMARK":
                    return
        except RefusedError as refused:
            if refused.code != 410:
                raise

    def preferred(self, group: str) -> str | None:
        """Return the preferred version of an API group, such as ``ray.io/v1``, if there is one."""
        found = self.find(f"/apis/{group}")
        return str(found["preferredVersion"]["groupVersion"]) if found else None

    def allows(self, verb: str, group: str, resource: str) -> bool:
        """Whether the caller has a permission in the namespace."""
        asked = {"namespace": self.namespace, "verb": verb, "group": group, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        answer = self.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool((answer.get("status") or {}).get("allowed"))

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> JsonObject:
        from urllib3.exceptions import HTTPError

        response = self._request(method, path, query, body, content_type)
        try:
            data = response.response.data
        except HTTPError as error:
            raise self._unreachable(error) from error
        if response.status >= 400:
            raise _refused(response.status, data)
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise PlatformError(
                f"expected a Kubernetes API server at {self.client.configuration.host}, got another server",
                field="--on",
                hint="check the address of the cluster in the kubeconfig, and the proxies",
            ) from error
        return dict(answer)

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        seconds: float | None = None,
    ) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if body is not None else {})
        request = self.client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=dict(body) if body is not None else None,
            auth_settings=["BearerToken"],
        )
        try:
            return self.client.call_api(*request, _request_timeout=(CONNECT_SECONDS, seconds or READ_SECONDS))
        except (HTTPError, ApiException) as error:  # here an ApiException is always a TLS failure
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> PlatformError:
        whose = f" of the context {self.context}" if self.context else ""
        return PlatformError(
            f"the cluster{whose} at {self.client.configuration.host} does not answer: {_why(error)}",
            field="--on",
            hint="check that it runs, and check the network or VPN",
        )


def connect(context: str, namespace: str) -> Cluster | None:
    """Find a cluster without a request to it.

    Parameters
    ----------
    context
        Context of the kubeconfig in KUBECONFIG (or ``~/.kube/config``); empty for its current one, and inside a cluster
        without a kubeconfig for the service account of the pod.
    namespace
        Empty for the namespace of the context or of the pod.

    Returns
    -------
    Cluster or None
        None if there is neither a kubeconfig nor a service account.

    Raises
    ------
    RequestError
        There is no such context.
    PlatformError
        The kubeconfig cannot be used, or `kubernetes` is not installed.
    """
    try:
        import urllib3
        from kubernetes import client, config
        from kubernetes.config.incluster_config import InClusterConfigLoader
    except ImportError as error:
        raise PlatformError("the Kubernetes client is not installed", hint="pip install 'cytoray[cluster]'") from error
    configuration = client.Configuration()
    configuration.retries = _retries()
    named = os.environ.get("KUBECONFIG") or "~/.kube/config"  # the client reads the variable only on import
    files = [one for one in named.split(os.pathsep) if one and Path(one).expanduser().is_file()]
    if not files:
        if not (_ACCOUNT / "token").is_file() or context:
            return None
        loader = InClusterConfigLoader(str(_ACCOUNT / "token"), str(_ACCOUNT / "ca.crt"))  # type: ignore[no-untyped-call]
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        own = (_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
        return Cluster(client.ApiClient(configuration), namespace or own)
    source = os.pathsep.join(files)
    try:
        contexts, current = config.list_kube_config_contexts(config_file=source)  # type: ignore[no-untyped-call]
        known = {one["name"]: one["context"].get("namespace") for one in contexts}
        if context and context not in known:
            raise RequestError(
                f"there is no context {context} in {named}",
                field="--on",
                hint=f"use one of: {', '.join(sorted(known))}",
            )
        chosen = context or current["name"]
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=source, context=chosen, client_configuration=configuration
        )
    except (config.ConfigException, TypeError, KeyError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise PlatformError(
            f"the kubeconfig {named} cannot be used: {error}", field="KUBECONFIG", hint="kubectl config view shows it"
        ) from error
    if not configuration.verify_ssl:  # set by the kubeconfig; kubectl does not warn at every request either
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return Cluster(client.ApiClient(configuration), namespace or known[chosen] or "default", chosen)


def no_cluster() -> PlatformError:
    """Return the error of a machine without a cluster."""
    return PlatformError(
        "expected a kubeconfig, or a pod of a cluster, got neither",
        field="KUBECONFIG",
        hint="set KUBECONFIG or create ~/.kube/config; kubectl get pods must work",
    )


def _retries() -> Any:
    from urllib3 import Retry

    # All verbs: applying, deleting and reading are idempotent.
    return Retry(
        total=4,
        connect=0,  # report a cluster that does not exist immediately
        read=2,
        status=4,
        backoff_factor=BACKOFF_SECONDS,
        backoff_jitter=BACKOFF_SECONDS / 2,
        status_forcelist=[429, 500, 502, 503, 504],
        allowed_methods=None,
        raise_on_status=False,
    )


def _refused(code: int, data: bytes) -> RefusedError:
    try:
        status = json.loads(data)
    except ValueError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        status = {"message": data.decode(errors="replace").strip()[:300]}
    return RefusedError(code, status)


_CAUSES = (
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
    ("NameResolutionError", "there is no such host"),
    ("Name or service not known", "there is no such host"),
    ("Connection refused", "the connection was refused"),
    ("No route to host", "there is no route to it"),
    ("Timeout", "the request timed out"),
    ("timed out", "the request timed out"),
    ("Disconnected", "the connection was closed"),
    ("Connection reset", "the connection was closed"),
)


def _why(error: Exception) -> str:
    """Return why there is no connection."""
    text = f"{type(error).__name__} {error!r} {getattr(error, 'reason', '')!r}"
    return next((words for sign, words in _CAUSES if sign in text), str(error))

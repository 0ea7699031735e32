"""The door to the `kubernetes` client: a cluster, one namespace of it, and the few verbs that jobs need."""

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
    """An API server, asked about one namespace.

    Objects are plain mappings, as Kubernetes writes them. All methods raise RefusedError where the API server refuses,
    and PlatformError where it does not answer.

    Parameters
    ----------
    client
        ``kubernetes.client.ApiClient``. One from `connect` repeats what can be repeated: too many requests, errors of
        the server, lost connections.
    namespace
        Where jobs are.
    context
        Of the kubeconfig; empty inside a cluster.
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
        """Read one object; None where there is none."""
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
                if refused.code == 410 and token:  # the pages' common version is gone: from the start
                    items, token = [], ""
                    continue
                raise
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            token = metadata.get("continue") or ""
            if not token:
                return items, metadata.get("resourceVersion") or ""

    def create(self, path: str, body: Mapping[str, Any]) -> JsonObject:
        """Create an object, or ask a question that Kubernetes takes as one, such as an access review."""
        return self._send("POST", path, {}, body)

    def apply(self, path: str, body: Mapping[str, Any]) -> JsonObject:
        """Create or change an object so that it has these fields: server-side apply, never by force."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return self._send("PATCH", path, query, body, "application/apply-patch+yaml")

    def merge(self, path: str, body: Mapping[str, Any]) -> JsonObject:
        """Change some fields of an object."""
        return self._send("PATCH", path, {"fieldManager": FIELD_MANAGER}, body, "application/merge-patch+json")

    def delete(self, path: str) -> None:
        """Delete an object and, after it, all that it owns; one that is gone is no error."""
        try:
            self._send("DELETE", path, {"propagationPolicy": "Background"})
        except RefusedError as refused:
            if refused.code != 404:
                raise

    def lines(self, path: str, *, seconds: float, **query: str) -> Iterator[str]:
        """Yield an answer line by line as it comes, until it ends, the connection is lost, or `seconds` were silent."""
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
            return  # who reads on asks again
        finally:
            response.response.close()
            response.response.release_conn()

    def wait_for_change(self, path: str, version: str, *, seconds: float, **query: str) -> None:
        """Return as soon as something of a list changes after `version`, or when `seconds` have passed.

        What changed is for the caller to read: a watch whose version is gone (410) ends just the same.
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
        """Return the version of an API group that the cluster prefers, such as ``ray.io/v1``, if it has any."""
        found = self.find(f"/apis/{group}")
        return str(found["preferredVersion"]["groupVersion"]) if found else None

    def allows(self, verb: str, group: str, resource: str) -> bool:
        """Ask whether the caller may do something in the namespace."""
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
                f"what answers at {self.client.configuration.host} is no Kubernetes API server",
                field="--on",
                hint="look at the address of the cluster in the kubeconfig, and at proxies on the way",
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
        except (HTTPError, ApiException) as error:  # an ApiException is TLS that fails, nothing else comes here
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> PlatformError:
        whose = f" of the context {self.context}" if self.context else ""
        return PlatformError(
            f"the cluster{whose} at {self.client.configuration.host} does not answer: {_why(error)}",
            field="--on",
            hint="look whether it runs, and at the network or VPN on the way",
        )


def connect(context: str, namespace: str) -> Cluster | None:
    """Find a cluster without asking it anything.

    Parameters
    ----------
    context
        Of the kubeconfig that KUBECONFIG names (or ``~/.kube/config``); empty for its current one, and inside a cluster
        without a kubeconfig for the pod's service account.
    namespace
        Empty for that of the context, or of the pod.

    Returns
    -------
    Cluster or None
        None where there is neither a kubeconfig nor a service account.

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
        raise PlatformError(
            "the Kubernetes client is not installed here", hint="pip install 'cytoray[cluster]'"
        ) from error
    configuration = client.Configuration()
    configuration.retries = _retries()
    named = os.environ.get("KUBECONFIG") or "~/.kube/config"  # the client reads the variable once, when it is imported
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
    if not configuration.verify_ssl:  # as the kubeconfig has it; kubectl does not speak of it at every request either
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return Cluster(client.ApiClient(configuration), namespace or known[chosen] or "default", chosen)


def no_cluster() -> PlatformError:
    """Return the error of a machine that knows no cluster."""
    return PlatformError(
        "there is no kubeconfig here, and this is no pod of a cluster",
        field="KUBECONFIG",
        hint="set KUBECONFIG or write ~/.kube/config; kubectl get pods must work",
    )


def _retries() -> Any:
    from urllib3 import Retry

    # All verbs: applying, deleting and asking twice does what once does.
    return Retry(
        total=4,
        connect=0,  # a cluster that is not there is told at once
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
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not one to trust"),
    ("NameResolutionError", "there is no such host"),
    ("Name or service not known", "there is no such host"),
    ("Connection refused", "the connection was refused"),
    ("No route to host", "there is no way there"),
    ("Timeout", "it took too long"),
    ("timed out", "it took too long"),
    ("Disconnected", "the connection was closed"),
    ("Connection reset", "the connection was closed"),
)


def _why(error: Exception) -> str:
    """Say in words of people why there is no connection."""
    told = f"{type(error).__name__} {error!r} {getattr(error, 'reason', '')!r}"
    return next((words for sign, words in _CAUSES if sign in told), str(error))

"""Translates refusals of a Kubernetes cluster to errors with a hint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cytoray_analysis.errors import (
    CytorayError,
    ForbiddenError,
    JobNotFoundError,
    OverloadedError,
    PlatformError,
    RequestError,
    UnauthorizedError,
)

_QUOTA = re.compile(
    r"exceeded quota: (?P<name>[^,]+), requested: (?P<asked>.+), used: (?P<used>.+), limited: (?P<limit>.+)"
)
_WEBHOOK = re.compile(r"admission webhook \"(?P<name>[^\"]+)\" denied the request:? ?(?P<why>.*)", re.DOTALL)
_POLICY = re.compile(r"ValidatingAdmissionPolicy '(?P<name>[^']+)' .*denied request: (?P<why>.*)", re.DOTALL)
_UNREACHED = re.compile(r"failed calling webhook \"(?P<name>[^\"]+)\"")
_CAN = re.compile(r"cannot (?P<verb>[a-z]+) resource \"(?P<what>[^\"]+)\"")

KUBERAY_HINT = "install the operator of KubeRay, which the chart helm/cytoray includes, or choose another cluster"


class RefusedError(Exception):
    """An error response of the API server; used only inside this package.

    Parameters
    ----------
    code
        HTTP status.
    status
        The ``Status`` object of Kubernetes in the response; empty if something else answered.
    """

    def __init__(self, code: int, status: Mapping[str, Any]) -> None:
        super().__init__(status.get("message") or f"HTTP {code}")
        self.code = code
        self.reason: str = status.get("reason") or ""
        self.message: str = status.get("message") or ""
        self.details: Mapping[str, Any] = status.get("details") or {}


def explain(refused: RefusedError, *, namespace: str, context: str) -> CytorayError:
    """Translate a refusal to an error for the caller.

    Parameters
    ----------
    refused
        The response of the API server.
    namespace
        Namespace of the request.
    context
        Context of the kubeconfig; empty inside a cluster.
    """
    message = refused.message
    flag = f" --context {context}" if context else ""
    if refused.code == 401:
        return UnauthorizedError(
            f"the cluster does not accept your credentials: {message or 'Unauthorized'}",
            field="--on",
            hint=f"sign in again and check with kubectl{flag} get pods",
        )
    if refused.code == 403:
        return _forbidden(message, namespace)
    if refused.code == 404:
        return _missing(refused, namespace, flag)
    if refused.code == 409:
        return PlatformError(
            f"the cluster reports a conflict with another change: {message}", hint="check the job, and try again"
        )
    if refused.code == 410:
        return PlatformError(f"the requested version of the object has expired: {message}", hint="try again")
    if refused.code == 422 and (rule := explain_admission(message)):
        return ForbiddenError(rule[0], hint=rule[1])
    if refused.code in (400, 413, 422):
        return RequestError(f"the cluster rejects the job: {message}", hint="change the section scale of the recipe")
    if refused.code == 429:
        return OverloadedError("the API server of the cluster is overloaded", hint="try again in a minute")
    if "field not declared in schema" in message:
        return PlatformError(
            f"the KubeRay of this cluster is too old: {message}", hint="install KubeRay v1.7.0 or later"
        )
    if unreached := _UNREACHED.search(message):
        return PlatformError(
            f"the admission webhook {unreached['name']} of the cluster does not answer: {message}",
            hint="ask the operator of the cluster; nothing was submitted",
        )
    return PlatformError(
        f"the API server of the cluster failed with {refused.code}: {message or 'no reason given'}",
        hint="try again, or ask the operator of the cluster",
    )


def explain_quota(message: str) -> tuple[str, str] | None:
    """Parse a refusal by a ResourceQuota, and return reason and hint; None for other refusals."""
    found = _QUOTA.search(message)
    if found is None:
        return None
    reason = (
        f"the quota {found['name']} is exceeded: {found['asked']} requested, {found['used']} used, "
        f"{found['limit']} allowed"
    )
    return reason, "wait until other jobs have ended, request less in scale, or ask the operator to raise the quota"


def explain_admission(message: str) -> tuple[str, str] | None:
    """Parse a refusal by a rule of the cluster, and return reason and hint; None for other refusals."""
    if quota := explain_quota(message):
        return quota
    if denied := _POLICY.search(message) or _WEBHOOK.search(message):
        return f"the cluster's rule {denied['name']} forbids it: {denied['why']}", "ask the operator of the cluster"
    if "violates PodSecurity" in message:
        return f"the namespace forbids such pods: {message}", "ask the operator to allow them, or choose another one"
    return None


def _forbidden(message: str, namespace: str) -> CytorayError:
    if quota := explain_quota(message):
        return PlatformError(quota[0], hint=quota[1])
    if rule := explain_admission(message):
        return ForbiddenError(rule[0], hint=rule[1])
    if "is being terminated" in message:
        return PlatformError(f"the namespace {namespace} is being deleted", hint="choose another with --on")
    if can := _CAN.search(message):
        return no_right(can["verb"], can["what"], namespace)
    return ForbiddenError(f"the cluster forbids it: {message}", hint="ask the operator of the cluster")


def no_right(verb: str, resource: str, namespace: str) -> ForbiddenError:
    """Return the error for a missing permission."""
    return ForbiddenError(
        f"you have no permission to {verb} {resource} in the namespace {namespace}",
        field="--on",
        hint="ask the operator to bind the role cytoray-jobs to you, or use the jobs service: --on service:URL",
    )


def no_namespace(namespace: str, flag: str = "") -> RequestError:
    """Return the error for a namespace that does not exist."""
    return RequestError(
        f"there is no namespace {namespace} in this cluster",
        field="--on",
        hint=f"name another, as in kubernetes:CONTEXT/NAMESPACE; kubectl{flag} get namespaces lists them",
    )


def no_kuberay() -> PlatformError:
    """Return the error for a cluster without KubeRay."""
    return PlatformError("this cluster has no RayJob: KubeRay is not installed", hint=KUBERAY_HINT)


def _missing(refused: RefusedError, namespace: str, flag: str) -> CytorayError:
    kind, name = refused.details.get("kind"), refused.details.get("name")
    if kind == "namespaces":
        return no_namespace(namespace, flag)
    if kind == "rayjobs" and name:
        return JobNotFoundError(
            f"there is no job {name} in the namespace {namespace}",
            hint="cytoray jobs list with the same --on lists all; records are removed some days after the end",
        )
    if not refused.reason:  # "404 page not found": the whole group is unknown
        return no_kuberay()
    return PlatformError(f"the cluster does not find it: {refused.message}", hint="ask the operator of the cluster")

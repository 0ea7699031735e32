"""What a Kubernetes cluster refuses, told in one sentence with what to do."""

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
_UNREACHED = re.compile(r"failed calling webhook \"(?P<name>[^\"]+)\"")
_CAN = re.compile(r"cannot (?P<verb>[a-z]+) resource \"(?P<what>[^\"]+)\"")

KUBERAY_HINT = "install KubeRay's operator, which the chart helm/cytoray brings along, or choose another cluster"


class RefusedError(Exception):
    """An answer of the API server that is no success; stays inside this package.

    Parameters
    ----------
    code
        HTTP status.
    status
        The ``Status`` that came with it, as Kubernetes has it; empty where something else answered.
    """

    def __init__(self, code: int, status: Mapping[str, Any]) -> None:
        super().__init__(status.get("message") or f"HTTP {code}")
        self.code = code
        self.reason: str = status.get("reason") or ""
        self.message: str = status.get("message") or ""
        self.details: Mapping[str, Any] = status.get("details") or {}


def explain(refused: RefusedError, *, namespace: str, context: str) -> CytorayError:
    """Turn a refusal into the error that a caller understands.

    Parameters
    ----------
    refused
        What the API server said.
    namespace
        Where jobs were asked for.
    context
        Of the kubeconfig; empty inside a cluster.
    """
    message = refused.message
    flag = f" --context {context}" if context else ""
    if refused.code == 401:
        return UnauthorizedError(
            f"the cluster does not know who you are: {message or 'Unauthorized'}",
            field="--on",
            hint=f"sign in again, until kubectl{flag} get pods works",
        )
    if refused.code == 403:
        return _forbidden(message, namespace)
    if refused.code == 404:
        return _missing(refused, namespace, flag)
    if refused.code == 409:
        return PlatformError(
            f"the cluster refuses, since somebody else changed it: {message}", hint="look at the job, and try again"
        )
    if refused.code == 410:
        return PlatformError(f"the cluster no longer knows what was asked about: {message}", hint="try again")
    if refused.code in (400, 413, 422):
        return RequestError(f"the cluster does not take this: {message}", hint="change the recipe's section scale")
    if refused.code == 429:
        return OverloadedError("the cluster's API server has too much to do", hint="try again in a minute")
    if "field not declared in schema" in message:
        return PlatformError(
            f"this cluster's KubeRay is too old: {message}", hint="have KubeRay v1.7.0 or later installed"
        )
    if unreached := _UNREACHED.search(message):
        return PlatformError(
            f"the cluster's admission webhook {unreached['name']} does not answer: {message}",
            hint="ask who runs the cluster; nothing was submitted",
        )
    return PlatformError(
        f"the cluster's API server failed with {refused.code}: {message or 'it gave no reason'}",
        hint="try again, or ask who runs the cluster",
    )


def explain_quota(message: str) -> tuple[str, str] | None:
    """Read a refusal by a ResourceQuota; returns reason and hint, None where it is another one."""
    found = _QUOTA.search(message)
    if found is None:
        return None
    reason = (
        f"the quota {found['name']} is exceeded: {found['asked']} asked for, {found['used']} used, "
        f"{found['limit']} allowed"
    )
    return reason, "wait until other jobs have ended, ask for less in scale, or have the quota raised"


def explain_admission(message: str) -> tuple[str, str] | None:
    """Read a refusal by a rule of the cluster; returns reason and hint, None where it is another one."""
    if quota := explain_quota(message):
        return quota
    if denied := _WEBHOOK.search(message):
        return f"the cluster's rule {denied['name']} forbids it: {denied['why']}", "ask who runs the cluster"
    if "violates PodSecurity" in message:
        return f"the namespace forbids such pods: {message}", "have the namespace allow them, or choose another"
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
    return ForbiddenError(f"the cluster forbids it: {message}", hint="ask who runs the cluster")


def no_right(verb: str, resource: str, namespace: str) -> ForbiddenError:
    """Return the error of somebody who may not do something."""
    return ForbiddenError(
        f"you may not {verb} {resource} in the namespace {namespace}",
        field="--on",
        hint="have the role cytoray-jobs bound to you there, or go through the jobs service: --on service:URL",
    )


def no_namespace(namespace: str, flag: str = "") -> RequestError:
    """Return the error of a namespace that does not exist."""
    return RequestError(
        f"there is no namespace {namespace} in this cluster",
        field="--on",
        hint=f"name another, as in kubernetes:CONTEXT/NAMESPACE; kubectl{flag} get namespaces lists them",
    )


def no_kuberay() -> PlatformError:
    """Return the error of a cluster without KubeRay."""
    return PlatformError("this cluster has no RayJob: KubeRay is not installed", hint=KUBERAY_HINT)


def _missing(refused: RefusedError, namespace: str, flag: str) -> CytorayError:
    kind, name = refused.details.get("kind"), refused.details.get("name")
    if kind == "namespaces":
        return no_namespace(namespace, flag)
    if kind == "rayjobs" and name:
        return JobNotFoundError(
            f"there is no job {name} in the namespace {namespace}",
            hint="cytoray jobs list with the same --on shows all; a job's record is removed some days after its end",
        )
    if not refused.reason:  # "404 page not found": the whole group is unknown
        return no_kuberay()
    return PlatformError(f"the cluster does not find it: {refused.message}", hint="ask who runs the cluster")

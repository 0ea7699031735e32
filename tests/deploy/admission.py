"""Admission policies as an API server applies them: ValidatingAdmissionPolicy, its bindings, and CEL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from cel_expr_python import cel

from deploy.charts import Manifest

_RESOURCES = {"RayJob": "rayjobs", "RayCluster": "rayclusters", "Pod": "pods"}


def refusals(
    manifests: Iterable[Manifest],
    what: Manifest,
    *,
    namespace: str,
    before: Manifest | None = None,
    part: str | None = None,
) -> list[str]:
    """Return what the policies of some manifests have against an object; nothing where they let it pass.

    Parameters
    ----------
    manifests
        Policies and bindings among them.
    what, before
        The object, and as it was; without that it is created.
    namespace
        Where.
    part
        The subresource that is written to, such as ``ephemeralcontainers``.
    """
    found = list(manifests)
    bound = {
        one["spec"]["policyName"]
        for one in found
        if one["kind"] == "ValidatingAdmissionPolicyBinding" and _selects(one["spec"]["matchResources"], namespace)
    }
    operation = "CREATE" if before is None else "UPDATE"
    group, _, version = ("/" + what["apiVersion"]).rpartition("/")
    resource = "/".join(one for one in (_RESOURCES[what["kind"]], part) if one)
    asked = (group.strip("/"), version, operation, resource)
    data = {"object": what, "oldObject": before, "request": {"operation": operation, "namespace": namespace}}
    return [
        problem
        for one in found
        if one["kind"] == "ValidatingAdmissionPolicy" and one["metadata"]["name"] in bound
        if any(_rules(rule, asked) for rule in one["spec"]["matchConstraints"]["resourceRules"])
        for problem in _problems(one["spec"], data)
    ]


def _selects(resources: Mapping[str, Any], namespace: str) -> bool:
    wanted: dict[str, str] = resources["namespaceSelector"]["matchLabels"]
    return wanted.items() <= {"kubernetes.io/metadata.name": namespace}.items()


def _rules(rule: Mapping[str, Any], asked: tuple[str, ...]) -> bool:
    keys = ("apiGroups", "apiVersions", "operations", "resources")
    return all(value in rule[key] for key, value in zip(keys, asked, strict=True))


def _problems(spec: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    for condition in spec["matchConditions"]:
        value = _value(condition["expression"], {**data, "variables": {}})
        if value is False:
            return []
        if value is not True:  # failurePolicy: Fail
            return [f"{condition['name']}: {value}"]
    variables: dict[str, Any] = {}
    for one in spec["variables"]:
        value = _value(one["expression"], {**data, "variables": variables})
        if not isinstance(value, _Failure):
            variables[one["name"]] = value
    results = {
        one["message"]: _value(one["expression"], {**data, "variables": variables}) for one in spec["validations"]
    }
    return [
        message if value is False else f"{message}: {value}" for message, value in results.items() if value is not True
    ]


class _Failure(str):
    """Why an expression has no value."""


def _value(expression: str, data: Mapping[str, Any]) -> Any:
    result = _compiled(expression).eval(data=dict(data))
    if "ERROR" in str(result.type()):
        return _Failure(result.value())
    return result.plain_value()


@cache
def _compiled(expression: str) -> Any:
    names = ("object", "oldObject", "request", "variables")
    return cel.NewEnv(variables=dict.fromkeys(names, cel.Type.DYN)).compile(expression)

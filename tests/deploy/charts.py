"""Render the chart with Helm's own engine, and check manifests as an API server would.

Kinds of Kubernetes are checked by its OpenAPI schemas (kubernetes-validate), those of KubeRay by its definitions of
custom resources, which lie beside the checkout in ``../shared/kuberay-crds``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm" / "cytoray"
VALUE_FILES = tuple(sorted((CHART / "values").glob("*.yaml")))
CRDS = REPOSITORY.parent / "shared" / "kuberay-crds"
KUBERNETES = "1.34"

Manifest = dict[str, Any]
# Values with which every template makes something.
EVERYTHING: Manifest = {
    "dataClaims": ["plates"],
    "serving": {"gateways": 3, "authentication": "token"},
    "mlflow": {"replicas": 2, "autoscaling": {"enabled": True}},
    "gpu": {"runtimeClass": "nvidia"},
    "ingress": {
        "enabled": True,
        "tlsSecret": "certificate",
        "hosts": {"gateway": "a.example.org", "jobs": "b.example.org", "mlflow": "c.example.org"},
    },
    "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
    "priorityClasses": {"create": True},
}
CASES: dict[str, Path | Manifest | None] = {
    "defaults": None,
    **{path.stem: path for path in VALUE_FILES},
    "everything": EVERYTHING,
}
# Checked by nobody here: these kinds come with operators whose definitions are not at hand.
UNCHECKED = frozenset({"monitoring.coreos.com/v1"})


def values(source: str | Path | Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return values to render with: those of a file, changed at some places.

    Parameters
    ----------
    source
        A file, the name of one of the chart's value files such as ``laptop``, or the values themselves.
    **changes
        Merged into them, level by level.
    """
    if isinstance(source, str):
        source = CHART / "values" / f"{source}.yaml"
    given = yaml.safe_load(source.read_text(encoding="utf-8")) if isinstance(source, Path) else source
    return merged(given or {}, changes)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes`, as Helm merges values: level by level, lists as a whole."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def render(
    source: str | Path | Mapping[str, Any] | None = None,
    *,
    name: str = "cytoray",
    namespace: str = "cytoray",
    upgrade: bool = False,
    **changes: Any,
) -> list[Manifest]:
    """Render the chart as ``helm template`` does, without the charts that it depends on.

    Parameters
    ----------
    source, **changes
        See `values`.
    name, namespace
        Of the release.
    upgrade
        Whether the release exists already.

    Raises
    ------
    helm_python.HelmError
        The values do not fit the schema, or a template fails.
    """
    return [
        manifest
        for path, text in rendered_files(source, name=name, namespace=namespace, upgrade=upgrade, **changes).items()
        if path.startswith("cytoray/templates/") and path.endswith(".yaml")
        for manifest in yaml.safe_load_all(text)
        if manifest is not None
    ]


def rendered_files(
    source: str | Path | Mapping[str, Any] | None = None,
    *,
    name: str = "cytoray",
    namespace: str = "cytoray",
    upgrade: bool = False,
    **changes: Any,
) -> dict[str, str]:
    """Render the chart; the text of each template by its path, ``NOTES.txt`` among them."""
    from helm_python import Chart

    with Chart.load(CHART) as chart:
        result: dict[str, str] = chart.render(
            values(source, **changes), name=name, namespace=namespace, is_install=not upgrade, is_upgrade=upgrade
        )
    return result


def validate(manifest: Manifest) -> list[str]:
    """Return what an API server would refuse in a manifest; nothing when it would take it.

    Raises
    ------
    FileNotFoundError
        It is KubeRay's, and ``../shared/kuberay-crds`` is not there.
    """
    version = manifest["apiVersion"]
    if version in UNCHECKED:
        return []
    if version.startswith("ray.io/"):
        return _validate_custom(manifest)
    import kubernetes_validate

    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        place = ".".join(str(part) for part in error.path)
        return [f"{title(manifest)}: {place}: {error.message}"]
    return []


def named(manifests: Iterable[Manifest], wanted: str) -> Manifest:
    """Return the one manifest with a title, such as ``Service/cytoray-jobs``."""
    found = [one for one in manifests if title(one) == wanted]
    assert len(found) == 1, f"{wanted} is there {len(found)} times"
    return found[0]


def title(manifest: Manifest) -> str:
    """Return ``Kind/name``."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def pod_templates(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Yield the templates of pods in a manifest, each with the place where it stands."""
    kind, spec = manifest["kind"], manifest.get("spec") or {}
    if kind in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
        yield title(manifest), spec["template"]
    clusters = {"RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}
    cluster = spec if kind == "RayCluster" else spec.get(clusters.get(kind, ""), None)
    if cluster is not None:
        yield f"{title(manifest)} head", cluster["headGroupSpec"]["template"]
        for group in cluster.get("workerGroupSpecs", ()):
            yield f"{title(manifest)} {group['groupName']}", group["template"]
    if kind == "RayJob" and spec.get("submitterPodTemplate"):
        yield f"{title(manifest)} submitter", spec["submitterPodTemplate"]


def containers(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Yield all containers of a manifest, those that prepare a pod too, each with the place where it stands."""
    for place, template in pod_templates(manifest):
        for container in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
            yield f"{place} {container['name']}", container


@cache
def _custom_schema(version: str, kind: str) -> Manifest | None:
    if not CRDS.is_dir():
        raise FileNotFoundError(f"there is no {CRDS}, where KubeRay's definitions are looked for")
    path = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not path.exists():
        return None
    # Half a megabyte each: libyaml reads them in a second, Python alone in fifteen.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition: Manifest = yaml.load(path.read_text(encoding="utf-8"), loader)["spec"]  # noqa: S506 - a safe one
    named = {f"{definition['group']}/{one['name']}": one["schema"]["openAPIV3Schema"] for one in definition["versions"]}
    return named.get(version)


@cache
def _validator(version: str, kind: str) -> Any:
    from jsonschema import Draft7Validator  # type: ignore[import-untyped]

    return Draft7Validator(_plain(_custom_schema(version, kind)))


def _validate_custom(manifest: Manifest) -> list[str]:
    """Return unknown fields, which a server would drop silently, and what JSON Schema refuses."""
    key = (manifest["apiVersion"], manifest["kind"])
    schema = _custom_schema(*key)
    if schema is None:
        return [f"{title(manifest)}: KubeRay has no {manifest['kind']} in {manifest['apiVersion']}"]
    prepared = _prepared(manifest, schema)
    refused = [
        f"{'.'.join(str(part) for part in error.path)}: {error.message}"
        for error in _validator(*key).iter_errors(prepared)
    ]
    return [f"{title(manifest)}: {problem}" for problem in (*_unknown_fields(prepared, schema, ""), *refused)]


def _prepared(value: Any, schema: Manifest) -> Any:
    """Drop nulls and put in defaults, as an API server does before it checks."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        inner = schema.get("additionalProperties")
        others: Manifest = inner if isinstance(inner, dict) else {}
        kept = {key: _prepared(one, properties.get(key, others)) for key, one in value.items() if one is not None}
        for key, one in properties.items():
            if key not in kept and "default" in one:
                kept[key] = copy.deepcopy(one["default"])
        return kept
    if isinstance(value, list):
        return [_prepared(one, schema.get("items", {})) for one in value]
    return value


def _unknown_fields(value: Any, schema: Manifest, place: str) -> Iterator[str]:
    if isinstance(value, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        properties, inner = schema.get("properties", {}), schema.get("additionalProperties")
        known = bool(properties) and not inner and not schema.get("x-kubernetes-embedded-resource")
        for key, one in value.items():
            if key in properties:
                yield from _unknown_fields(one, properties[key], f"{place}.{key}")
            elif isinstance(inner, dict):
                yield from _unknown_fields(one, inner, f"{place}.{key}")
            elif known:
                yield f"{place}.{key}: no such field"
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _unknown_fields(one, schema.get("items", {}), f"{place}[{number}]")


def _plain(schema: Any) -> Any:
    """Return a schema in plain JSON Schema: quantities and ports are ``x-kubernetes-int-or-string`` there."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _plain(value) for key, value in schema.items() if key not in ("format", "default")}
    if schema.get("x-kubernetes-int-or-string"):
        plain.pop("type", None)
        plain["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return plain

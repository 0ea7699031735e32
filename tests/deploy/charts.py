"""Render the chart with Helm itself, and check manifests as an API server would.

Kinds of Kubernetes are checked by its OpenAPI schemas (kubernetes-validate), those of KubeRay by its definitions of
custom resources, which lie beside the checkout in ``../shared/kuberay-crds``.
"""

from __future__ import annotations

import atexit
import copy
import json
import runpy
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm" / "cytoray"
VALUE_FILES = tuple(sorted((CHART / "values").glob("*.yaml")))
CRDS = REPOSITORY.parent / "shared" / "kuberay-crds"
KUBERNETES = "1.36"

_TOOLS = runpy.run_path(str(REPOSITORY / "deploy" / "helm_and_kubectl.py"))
HelmError: type[RuntimeError] = _TOOLS["HelmError"]

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


def tool(name: str) -> str:
    """Return the path of ``helm`` or ``kubectl``."""
    return str(_TOOLS["tool"](name))


def render(
    source: str | Path | Mapping[str, Any] | None = None,
    *,
    name: str = "cytoray",
    namespace: str = "cytoray",
    **changes: Any,
) -> list[Manifest]:
    """Return all objects of the chart, those that only hooks make among them.

    Parameters
    ----------
    source, **changes
        See `values`.
    name, namespace
        Of the release.

    Raises
    ------
    HelmError
        The values do not fit the schema, or a template fails.
    """
    made: list[Manifest] = json.loads(_objects(json.dumps(values(source, **changes)), name, namespace))
    return made


@cache
def _objects(given: str, name: str, namespace: str) -> str:
    """As JSON, which is read in a moment: every test gets objects of its own."""
    return json.dumps(
        [
            manifest
            for path, text in _files(None, given, name, namespace).items()
            if path.endswith(".yaml")
            for manifest in load_all(text)
            if manifest is not None
        ]
    )


def load_all(text: str) -> Iterator[Any]:
    """Yield the documents of a YAML text through libyaml, which reads a chart in a tenth of Python's time."""
    return yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def rendered_files(
    source: str | Path | Mapping[str, Any] | None = None,
    *,
    name: str = "cytoray",
    namespace: str = "cytoray",
    chart: Path | None = None,
    **changes: Any,
) -> dict[str, str]:
    """Render the chart; the text of each template that makes something by its path, ``NOTES.txt`` among them.

    Parameters
    ----------
    source, name, namespace, **changes
        See `render`.
    chart
        A copy of the chart; None for the chart itself, with an operator as if it had been fetched.
    """
    return dict(_files(chart, json.dumps(values(source, **changes)), name, namespace))


@cache
def _files(chart: Path | None, given: str, name: str, namespace: str) -> dict[str, str]:
    made = _TOOLS["release"](chart or whole_chart(), json.loads(given), name=name, namespace=namespace)
    result: dict[str, str] = _TOOLS["sources"](made["manifest"])
    for hook in made.get("hooks") or []:
        result[hook["path"]] = result.get(hook["path"], "") + f"---\n{hook['manifest']}\n"
    return result | {"cytoray/templates/NOTES.txt": made["info"]["notes"]}


@cache
def whole_chart() -> Path:
    """Copy the chart once, with an operator as if it had been fetched."""
    folder = tempfile.mkdtemp(prefix="chart-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return copied(Path(folder))


def copied(folder: Path, *, operator: Mapping[str, str] | None = MappingProxyType({})) -> Path:
    """Copy the chart into a folder; return the copy.

    Parameters
    ----------
    folder
        Where the copy comes to lie.
    operator
        Templates of KubeRay's operator by their names, as if it had been fetched; None for one that was not.
    """
    copy_of_it = folder / "cytoray"
    shutil.copytree(CHART, copy_of_it, ignore=shutil.ignore_patterns("*.tgz"))
    if operator is not None:
        templates = copy_of_it / "charts" / "kuberay-operator-1.7.0" / "templates"
        templates.mkdir(parents=True)
        (templates.parent / "Chart.yaml").write_text("apiVersion: v2\nname: kuberay-operator\nversion: 1.7.0\n")
        for name, text in operator.items():
            (templates / name).write_text(text)
    return copy_of_it


def validate(manifest: Manifest) -> list[str]:
    """Return what an API server would refuse in a manifest; nothing when it would take it.

    Raises
    ------
    FileNotFoundError
        It is KubeRay's, and ``../shared/kuberay-crds`` is not there.
    """
    return list(_refused(json.dumps(manifest)))


@cache
def _refused(text: str) -> tuple[str, ...]:
    """Check each manifest once: most are the same in most releases."""
    manifest = json.loads(text)
    version = manifest["apiVersion"]
    if version in UNCHECKED:
        return ()
    if version.startswith("ray.io/"):
        return tuple(_validate_custom(manifest))
    import kubernetes_validate

    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        place = ".".join(str(part) for part in error.path)
        return (f"{title(manifest)}: {place}: {error.message}",)
    return ()


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
    definition: Manifest = next(load_all(path.read_text(encoding="utf-8")))["spec"]
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

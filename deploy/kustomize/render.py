"""Write the kustomization from the Helm chart: the base, and an overlay for each of the chart's value files.

    python deploy/kustomize/render.py

The base is the chart with its defaults; an overlay contains the changes of a value file: patches, and a file of added
objects. No passwords are created: the files name the secrets, and deploy/README.md explains how to create them. Rules
and dashboards are omitted. Edit the chart, then run this script again; a test compares the two.
"""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cytoray_analysis.files import write_whole

FOLDER = Path(__file__).resolve().parent
CHART = FOLDER.parents[1] / "helm" / "cytoray"
NAMESPACE = "cytoray"
_TOOLS = runpy.run_path(str(FOLDER.parent / "helm_and_kubectl.py"))
# The secrets that the chart would create, by the values that hold their names.
SECRETS = {
    "redis": {"secret": "cytoray-redis"},
    "postgresql": {"secret": "cytoray-postgresql"},
    "objectStore": {"secret": "cytoray-s3"},
    "serving": {"frontSecret": "cytoray-front"},
}
_HEADER = "# Written by deploy/kustomize/render.py from the chart; change that, not this.\n"
_DASHBOARD = "cytoray-dashboard-"

Manifest = dict[str, Any]
Key = tuple[str, str, str]  # kind, namespace and name
_OF_THE_CLUSTER = ("Namespace", "PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
Operation = dict[str, Any]


def rendered(values: Mapping[str, Any]) -> dict[Key, Manifest]:
    """Return the objects of the chart, without fields that only Helm uses.

    Parameters
    ----------
    values
        The content of a value file.
    """
    named = {part: {**name, **values.get(part, {})} for part, name in SECRETS.items()}
    # An overlay contains no operator.
    without = {"kuberay-operator": {"enabled": False}}
    text = _TOOLS["release"](CHART, {**values, **named, **without}, name="cytoray", namespace=NAMESPACE)["manifest"]
    placed = (
        _in_namespace(_without_helm(one))
        for one in yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # libyaml, where it is there
        if one and one["kind"] != "PrometheusRule" and not one["metadata"]["name"].startswith(_DASHBOARD)
    )
    return {(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one for one in placed}


def value_files() -> dict[str, Mapping[str, Any]]:
    """Return the chart's value files by their names."""
    files = sorted((CHART / "values").glob("*.yaml"))
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}


def _in_namespace(manifest: Manifest) -> Manifest:
    """Set the namespace of an object; if kustomize set it, all objects would get the same one."""
    metadata = dict(manifest["metadata"])
    if manifest["kind"] not in _OF_THE_CLUSTER:
        metadata = {"name": metadata.pop("name"), "namespace": metadata.pop("namespace", NAMESPACE), **metadata}
    return {**manifest, "metadata": metadata}


def _without_helm(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_helm(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _without_helm(value) for key, value in node.items() if not str(key).startswith("helm.sh/")}
    if kept.get("app.kubernetes.io/managed-by") == "Helm":
        kept["app.kubernetes.io/managed-by"] = "kustomize"
    return {key: value for key, value in kept.items() if not (key == "annotations" and value == {})}


def difference(before: Any, after: Any, path: str = "") -> Iterator[Operation]:
    """Yield the operations of a JSON patch (RFC 6902); lists of another length are replaced completely."""
    if type(before) is type(after) and isinstance(before, dict):
        for key in before.keys() | after.keys():
            place = f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"
            if key not in after:
                yield {"op": "remove", "path": place}
            elif key not in before:
                yield {"op": "add", "path": place, "value": after[key]}
            else:
                yield from difference(before[key], after[key], place)
    elif type(before) is type(after) and isinstance(before, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from difference(one, other, f"{path}/{index}")
    elif before != after:
        yield {"op": "replace", "path": path, "value": after}


def base_files(base: Mapping[Key, Manifest]) -> dict[str, str]:
    """Return the files of the base: one for each component."""
    parts: dict[str, list[Manifest]] = {}
    for manifest in base.values():
        component = manifest["metadata"]["labels"].get("app.kubernetes.io/component", "cytoray")
        parts.setdefault(f"{component}.yaml", []).append(manifest)
    kustomization = {"resources": sorted(parts)}
    return {"kustomization.yaml": _kustomization(kustomization)} | {
        name: _HEADER + _documents(manifests) for name, manifests in sorted(parts.items())
    }


def overlay_files(base: Mapping[Key, Manifest], wanted: Mapping[Key, Manifest]) -> dict[str, str]:
    """Return the files of an overlay: the changes to the base."""
    files: dict[str, str] = {}
    patches: list[dict[str, Any]] = []
    for key, before in base.items():
        kind, namespace, name = key
        if key not in wanted:
            metadata = {"name": name, "namespace": namespace}
            gone = {"apiVersion": before["apiVersion"], "kind": kind, "metadata": metadata, "$patch": "delete"}
            patches.append({"patch": _documents([gone])})
        elif operations := sorted(difference(before, wanted[key]), key=lambda one: str(one["path"])):
            file = f"{kind.lower()}-{name}.yaml"
            files[file] = _HEADER + _dump(operations)
            patches.append({"path": file, "target": {"kind": kind, "name": name}})
    kustomization: dict[str, Any] = {"resources": ["../../base"]}
    if added := [manifest for key, manifest in wanted.items() if key not in base]:
        files["added.yaml"] = _HEADER + _documents(added)
        kustomization["resources"].append("added.yaml")
    return {"kustomization.yaml": _kustomization(kustomization | {"patches": patches}), **files}


def all_files() -> dict[Path, str]:
    """Return every file of the kustomization by its path."""
    base = rendered({})
    folders = {FOLDER / "base": base_files(base)}
    for name, values in value_files().items():
        folders[FOLDER / "overlays" / name] = overlay_files(base, rendered(values))
    return {folder / name: text for folder, files in folders.items() for name, text in files.items()}


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, so that they can be read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _dump(content: Any) -> str:
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _documents(manifests: list[Manifest]) -> str:
    return "---\n".join(_dump(manifest) for manifest in manifests)


def _kustomization(content: Mapping[str, Any]) -> str:
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return _HEADER + _dump(head | dict(content))


def main() -> None:
    """Write all files again."""
    files = all_files()
    for folder in ("base", "overlays"):
        shutil.rmtree(FOLDER / folder, ignore_errors=True)
    for path, text in files.items():
        write_whole(path, text)
    print(f"{len(files)} files", file=sys.stderr)


if __name__ == "__main__":
    main()

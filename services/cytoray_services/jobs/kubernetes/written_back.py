"""Normalises objects of KubeRay to the form in which its operator writes them.

The operator parses an object into Go types and writes all of it back when it sets a finalizer (``r.Update`` in
KubeRay 1.7). It then owns every field that its types write differently, and the next server-side apply of the same
manifest is refused as a conflict. In this form the operator changes nothing. The chart does the same with its
RayService: ``helm/cytoray/templates/_kuberay.tpl``.

The rules follow KubeRay's ``apis/ray/v1``, the types ``PodTemplateSpec`` and ``Quantity`` of Kubernetes 1.36, and the
defaults of KubeRay's definitions of custom resources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

# Added if missing, by the name of the parent field.
ADDED: Mapping[str, Mapping[str, Any]] = {
    # WorkerGroupSpec.ScaleStrategy is a struct, which Go always writes; the numbers are defaults of the definition.
    "workerGroupSpecs[]": {"numOfHosts": 1, "priority": 0, "scaleStrategy": {}},
    # PodTemplateSpec.ObjectMeta and Container.Resources are also structs.
    "template": {"metadata": {}},
    "submitterPodTemplate": {"metadata": {}},
    "containers[]": {"resources": {}},
    "initContainers[]": {"resources": {}},
    # Defaults of the definition.
    "ports[]": {"protocol": "TCP"},
    "clusterUpgradeOptions": {"maxSurgePercent": 100},
    # ResourceFieldSelector.Divisor is a Quantity, which Go always writes.
    "resourceFieldRef": {"divisor": "0"},
}
# String maps: unchanged, and omitted when they are empty.
_WORDS = frozenset({"labels", "annotations", "nodeSelector", "matchLabels"})
_AMOUNTS = frozenset({"requests", "limits"})
# Empty strings, false and 0 are omitted, except for pointer types, where they have a meaning.
_POINTERS = frozenset({"storageClassName", "runtimeClassName"})
_SWITCHES = frozenset({"readOnly", "hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty"})
_NUMBERS = frozenset(
    {"hostPort", "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"}
)
_QUANTITY = re.compile(r"^([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)$")
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def written_back(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a RayService, RayJob or RayCluster as the operator writes it; `manifest` is unchanged."""
    return {**manifest, "spec": _map(manifest["spec"], "spec")}


def canonical(amount: str | int | float) -> str:
    """Write a quantity in the canonical form of Kubernetes, such as 500m for 0.5 and 8Gi for 8192Mi."""
    text = str(amount)
    match = _QUANTITY.match(text)
    number, unit = (Decimal(match[1]), match[2]) if match else (Decimal(0), "?")
    if unit in _BINARY:
        value = number * 1024 ** _BINARY[unit]
        if value < 1024 or value != value.to_integral_value():
            return canonical(f"{value.normalize():f}")
        power = max(each for each in range(7) if value % 1024**each == 0)
        return f"{int(value // 1024**power)}{['', *_BINARY][power]}"
    if unit in _DECIMAL and number:
        value = number.scaleb(_DECIMAL[unit])
        fitting = [name for name, power in _DECIMAL.items() if value.scaleb(-power) % 1 == 0]
        return f"{int(value.scaleb(-_DECIMAL[fitting[-1]]))}{fitting[-1]}" if fitting else text
    return "0" if unit in _DECIMAL else text


def _map(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    kept = {key: _part(value, key) for key, value in values.items() if not _left_out(key, value)}
    return kept | {key: value for key, value in ADDED.get(name, {}).items() if key not in kept}


def _part(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        if key in _AMOUNTS:
            return {name: canonical(amount) for name, amount in value.items()}
        return dict(value) if key in _WORDS or key == "rayStartParams" else _map(value, key)
    if isinstance(value, list):
        return [_map(one, f"{key}[]") if isinstance(one, Mapping) else one for one in value]
    return canonical(value) if key == "sizeLimit" else value


def _left_out(key: str, value: Any) -> bool:
    if value is None or value == []:
        return True
    if isinstance(value, Mapping):
        return not value and key in _WORDS | _AMOUNTS
    if value is False:
        return key in _SWITCHES
    if value == 0:
        return key in _NUMBERS
    return value == "" and key not in _POINTERS

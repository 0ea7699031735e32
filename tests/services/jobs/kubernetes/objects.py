"""What an API server keeps, with the semantics and the words that were recorded from a real one (v1.3x)."""

from __future__ import annotations

import builtins
import copy
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from cytoray_services.jobs.kubernetes.quantities import needs, quantity, written

Json = dict[str, Any]

KINDS = {
    "configmaps": ("v1", "ConfigMap"),
    "events": ("v1", "Event"),
    "namespaces": ("v1", "Namespace"),
    "nodes": ("v1", "Node"),
    "persistentvolumeclaims": ("v1", "PersistentVolumeClaim"),
    "pods": ("v1", "Pod"),
    "resourcequotas": ("v1", "ResourceQuota"),
    "secrets": ("v1", "Secret"),
    "serviceaccounts": ("v1", "ServiceAccount"),
    "rayjobs": ("ray.io/v1", "RayJob"),
    "rayservices": ("ray.io/v1", "RayService"),
    "rayclusters": ("ray.io/v1", "RayCluster"),
    "localqueues": ("kueue.x-k8s.io/v1beta1", "LocalQueue"),
    "workloads": ("kueue.x-k8s.io/v1beta1", "Workload"),
    "priorityclasses": ("scheduling.k8s.io/v1", "PriorityClass"),
}


class StatusError(Exception):
    """A refusal, with the body that a real API server sends."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            **({"details": details} if details else {}),
            "code": code,
        }


def qualified(resource: str) -> str:
    """Name a resource as messages do: ``rayjobs.ray.io``, but ``pods``."""
    group = KINDS[resource][0].rpartition("/")[0]
    return f"{resource}.{group}" if group else resource


def not_found(resource: str, name: str) -> StatusError:
    group = KINDS[resource][0].rpartition("/")[0]
    return StatusError(
        404,
        "NotFound",
        f'{qualified(resource)} "{name}" not found',
        name=name,
        **({"group": group} if group else {}),
        kind=resource,
    )


class Objects:
    """Objects by resource, namespace and name, their versions, and what happened to them."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._objects: dict[tuple[str, str, str], Json] = {}
        self._owned: dict[tuple[str, str, str], dict[str, set[str]]] = {}
        self._events: list[tuple[int, str, str, str, Json]] = []
        self._version = 100
        self._oldest = 0

    @property
    def version(self) -> int:
        return self._version

    def compact(self) -> None:
        """Forget what happened, as etcd does after five minutes: watches and pages from before are gone."""
        with self.changed:
            self._step()
            self._oldest = self._version
            self._events.clear()

    def names(self, resource: str, namespace: str = "") -> list[str]:
        with self.changed:
            return sorted(name for kind, space, name in self._objects if (kind, space) == (resource, namespace))

    def get(self, resource: str, namespace: str, name: str) -> Json:
        with self.changed:
            try:
                return copy.deepcopy(self._objects[resource, namespace, name])
            except KeyError:
                raise not_found(resource, name) from None

    def list(self, resource: str, namespace: str, selectors: list[tuple[str, str]]) -> list[Json]:
        with self.changed:
            found = [
                one
                for (kind, space, _), one in sorted(self._objects.items())
                if kind == resource and namespace in ("", space) and _matches(one, selectors)
            ]
            return copy.deepcopy(found)

    def create(self, resource: str, namespace: str, body: Json, manager: str = "test") -> Json:
        """Put an object in; its quota is looked at as the admission of a real server does."""
        with self.changed:
            name = body["metadata"].get("name") or body["metadata"]["generateName"] + uuid.uuid4().hex[:5]
            if namespace and ("namespaces", "", namespace) not in self._objects:
                raise not_found("namespaces", namespace)
            if (resource, namespace, name) in self._objects:
                raise StatusError(409, "AlreadyExists", f'{qualified(resource)} "{name}" already exists', name=name)
            self._admit(resource, namespace, name, body)
            group, kind = KINDS[resource]
            made = {"apiVersion": group, "kind": kind, **copy.deepcopy(body)}
            made["metadata"] |= {
                "name": name,
                **({"namespace": namespace} if namespace else {}),
                "uid": str(uuid.uuid4()),
                "creationTimestamp": made["metadata"].get("creationTimestamp") or _now(),
                "generation": 1,
            }
            self._objects[resource, namespace, name] = made
            self._owned[resource, namespace, name] = {manager: set(_leaves(body))}
            return self._tell("ADDED", resource, namespace, name)

    def apply(self, resource: str, namespace: str, name: str, body: Json, manager: str, *, force: bool = False) -> Json:
        """Server-side apply: create, or set these fields, or refuse where another manager has set them otherwise."""
        with self.changed:
            key = (resource, namespace, name)
            if key not in self._objects:
                made = self.create(
                    resource, namespace, {**body, "metadata": {**body["metadata"], "name": name}}, manager
                )
                self._note_managers(key)
                return {**made, "metadata": self._objects[key]["metadata"]}
            now, owned = self._objects[key], self._owned[key]
            wanted = {
                path: value for path, value in _leaves(body).items() if not path.startswith((".apiVersion", ".kind"))
            }
            present = _leaves(now)
            conflicts = [
                (other, path)
                for path, value in wanted.items()
                for other, paths in owned.items()
                if other != manager and path in paths and present.get(path) != value
            ]
            if conflicts and not force:
                raise _conflict(conflicts, KINDS[resource][0])
            for path in owned.get(manager, set()) - wanted.keys():
                if not any(path in paths for other, paths in owned.items() if other != manager):
                    _drop(now, path)
            for other, path in conflicts:
                owned[other].discard(path)
            owned[manager] = set(wanted)
            _merge(now, copy.deepcopy(body))
            self._note_managers(key)
            return self._tell("MODIFIED", *key)

    def merge(self, resource: str, namespace: str, name: str, patch: Json, manager: str = "test") -> Json:
        """JSON merge patch; by a manager that is no applier, so that it takes the fields over."""
        with self.changed:
            self.get(resource, namespace, name)
            key = (resource, namespace, name)
            for paths in self._owned[key].values():
                paths -= set(_leaves(patch))
            self._owned[key].setdefault(manager, set()).update(_leaves(patch))
            _merge(self._objects[key], copy.deepcopy(patch))
            metadata = self._objects[key]["metadata"]
            if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
                return self._remove(key)
            return self._tell("MODIFIED", *key)

    def delete(self, resource: str, namespace: str, name: str) -> Json:
        with self.changed:
            self.get(resource, namespace, name)
            key = (resource, namespace, name)
            metadata = self._objects[key]["metadata"]
            if metadata.get("finalizers"):
                metadata["deletionTimestamp"] = _now()
                return self._tell("MODIFIED", *key)
            return self._remove(key)

    def watch(
        self, resource: str, namespace: str, version: int, selectors: builtins.list[tuple[str, str]], seconds: float
    ) -> Iterator[Json]:
        """Yield what happens after a version until `seconds` have passed."""
        if version < self._oldest:
            message = f"too old resource version: {version} ({self._oldest})"
            yield {"type": "ERROR", "object": StatusError(410, "Expired", message).body}
            return
        deadline = datetime.now(UTC).timestamp() + seconds
        while True:
            with self.changed:
                new = [
                    (number, kind, one)
                    for number, kind, what, space, one in self._events
                    if number > version and what == resource and namespace in ("", space) and _matches(one, selectors)
                ]
                if not new and not self.changed.wait(max(0.0, deadline - datetime.now(UTC).timestamp())):
                    bookmark = {"metadata": {"resourceVersion": str(self._version)}}
                    yield {"type": "BOOKMARK", "object": bookmark}
                    return
            for number, kind, one in new:
                version = number
                yield {"type": kind, "object": one}

    def is_expired(self, version: int) -> bool:
        return version < self._oldest

    def _admit(self, resource: str, namespace: str, name: str, body: Json) -> None:
        asked: dict[str, Decimal] = {f"count/{qualified(resource)}": Decimal(1)}
        if resource == "pods":
            asked |= {"pods": Decimal(1)}
            asked |= {f"requests.{what}": amount for what, amount in needs(body["spec"]).items()}
        for (kind, space, quota), one in self._objects.items():
            if (kind, space) != ("resourcequotas", namespace):
                continue
            hard, used = one["spec"]["hard"], one.setdefault("status", {}).setdefault("used", {})
            over = [
                what
                for what in sorted(hard)
                if what in asked and quantity(used.get(what, "0")) + asked[what] > quantity(hard[what])
            ]
            if over:
                said = [
                    ",".join(f"{what}={amounts.get(what, '0')}" for what in over)
                    for amounts in ({what: written(asked[what]) for what in over}, used, hard)
                ]
                message = (
                    f'{qualified(resource)} "{name}" is forbidden: exceeded quota: {quota}, '
                    f"requested: {said[0]}, used: {said[1]}, limited: {said[2]}"
                )
                raise StatusError(403, "Forbidden", message, name=name, kind=resource)
            for what in hard:
                if what in asked:
                    used[what] = written(quantity(used.get(what, "0")) + asked[what])

    def _note_managers(self, key: tuple[str, str, str]) -> None:
        self._objects[key]["metadata"]["managedFields"] = [
            {"manager": manager, "operation": "Apply", "apiVersion": KINDS[key[0]][0], "fieldsType": "FieldsV1"}
            for manager in self._owned[key]
        ]

    def _remove(self, key: tuple[str, str, str]) -> Json:
        gone = self._objects.pop(key)
        self._owned.pop(key)
        self._step()
        self._events.append((self._version, "DELETED", key[0], key[1], copy.deepcopy(gone)))
        for other, one in list(self._objects.items()):
            owners = one["metadata"].get("ownerReferences") or []
            if owners and all(owner["uid"] == gone["metadata"]["uid"] for owner in owners) and other in self._objects:
                self._remove(other)
        self.changed.notify_all()
        return gone

    def _tell(self, kind: str, resource: str, namespace: str, name: str) -> Json:
        one = self._objects[resource, namespace, name]
        self._step()
        one["metadata"]["resourceVersion"] = str(self._version)
        self._events.append((self._version, kind, resource, namespace, copy.deepcopy(one)))
        self.changed.notify_all()
        return copy.deepcopy(one)

    def _step(self) -> None:
        self._version += 1


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _matches(one: Json, selectors: list[tuple[str, str]]) -> bool:
    """Compare with ``("label:app", "x")`` and ``("field:metadata.name", "y")``."""
    for what, wanted in selectors:
        kind, _, name = what.partition(":")
        if kind == "label":
            if (one["metadata"].get("labels") or {}).get(name) != wanted:
                return False
            continue
        value: Any = one
        for part in name.split("."):
            value = (value or {}).get(part)
        if value != wanted:
            return False
    return True


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Return all values of an object by their paths; lists count as one value."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {
        at: leaf
        for key, each in value.items()
        if not (path == ".metadata" and key in ("name", "namespace"))
        for at, leaf in _leaves(each, f"{path}.{key}").items()
    }


def _merge(into: Json, patch: Json) -> None:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _drop(one: Json, path: str) -> None:
    *parents, last = path.strip(".").split(".")
    for part in parents:
        one = one.get(part, {})
    one.pop(last, None)


def _conflict(conflicts: list[tuple[str, str]], group: str) -> StatusError:
    plural = "conflict" if len(conflicts) == 1 else "conflicts"
    told = [f'conflict with "{manager}" using {group}: {path}' for manager, path in conflicts]
    message = f"Apply failed with {len(conflicts)} {plural}: {', '.join(told)}"
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{manager}" using {group}', "field": path}
        for manager, path in conflicts
    ]
    return StatusError(409, "Conflict", message, causes=causes)

"""Lineage: the origin and the successors of a version, and the versions that used a data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cytoray_analysis.errors import ModelNotFoundError, RequestError
from cytoray_services.datasets import Dataset, hash_dataset
from cytoray_services.promotion.seen_data import SeenData, image_digests, read_seen_data
from cytoray_services.registry import CHAMPION, ModelVersion, Registry

_HASH = re.compile(r"[0-9a-f]{8,64}")
SHOWN = 12  # characters of a hash


@dataclass(frozen=True)
class Node:
    """A node of the lineage.

    Attributes
    ----------
    key
        Unique key.
    kind
        ``data``, ``recipe``, ``code``, ``weights``, ``run``, ``version`` or ``alias``.
    label
        Text for display.
    detail
        The full hash or path.
    """

    key: str
    kind: str
    label: str
    detail: str = ""


@dataclass(frozen=True)
class Edge:
    """A dependency: `after` was made from `before`."""

    before: str
    after: str
    label: str


@dataclass(frozen=True)
class Lineage:
    """A directed acyclic graph around one version."""

    version: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Sighting:
    """A version that used some data.

    Attributes
    ----------
    whole
        Whether it was trained with exactly this data, or its whole folder.
    images
        Number of shared images by split; empty for a hash.
    """

    version: ModelVersion
    whole: bool
    images: dict[str, int]


def lineage_of(registry: Registry, version: ModelVersion) -> Lineage:
    """Follow a version back to data, recipe, code and weights, and forward to aliases and derived versions."""
    everyone = [one for model in registry.list() for one in model.versions]
    nodes: dict[str, Node] = {}
    edges: dict[tuple[str, str], Edge] = {}

    def add(node: Node, to: str | None = None, label: str = "") -> None:
        nodes.setdefault(node.key, node)
        if to is not None:
            edges.setdefault((node.key, to), Edge(node.key, to, label))

    following: ModelVersion | None = version
    while following is not None and following.reference not in nodes:
        add(_version_node(following))
        for node, to, label in _origin(registry, following):
            add(node, to, label)
        parent = _parent(everyone, following)
        if parent is not None:
            edges[parent.reference, f"run {following.run_id}"] = Edge(
                parent.reference, f"run {following.run_id}", "weights"
            )
        elif following.tags.get("parent"):
            source = following.tags["parent"]
            add(Node(f"weights {source}", "weights", source[:40], source), f"run {following.run_id}", "weights")
        following = parent
    for child in everyone:
        if _parent([version], child) is not None:
            add(_version_node(child))
            edges[version.reference, child.reference] = Edge(version.reference, child.reference, "started from")
    for alias in version.aliases:
        add(Node(f"@{alias}", "alias", f"@{alias}"))
        edges[version.reference, f"@{alias}"] = Edge(version.reference, f"@{alias}", "is")
    by_number = {one.version: one for one in everyone if one.name == version.name}
    for move in registry.history(version.name):
        if move.alias != CHAMPION or move.action != "promote" or version.version not in (move.before, move.after):
            continue
        before, after = by_number.get(move.before or ""), by_number.get(move.after)
        # Only from older to newer; otherwise a champion that returns would close a cycle.
        if before is not None and after is not None and int(before.version) < int(after.version):
            add(_version_node(before))
            add(_version_node(after))
            pair = before.reference, after.reference
            edges.setdefault(pair, Edge(*pair, "champion before"))
    return Lineage(version.reference, tuple(nodes.values()), tuple(edges.values()))


def _version_node(version: ModelVersion) -> Node:
    return Node(version.reference, "version", f"{version.reference}\n{version.digest[:SHOWN]}", version.digest)


def _origin(registry: Registry, version: ModelVersion) -> Iterator[tuple[Node, str, str]]:
    run = f"run {version.run_id}"
    yield Node(run, "run", f"run {(version.run_id or 'unknown')[:SHOWN]}", version.run_id or ""), version.reference, ""
    for kind in ("recipe", "code"):
        value = version.tags.get(kind, "")
        if value:
            yield Node(f"{kind} {value}", kind, f"{kind} {value[:SHOWN]}", value), run, ""
    seen = read_seen_data(registry.run(version.run_id)) if version.run_id else None
    if seen is None:
        digest = version.tags.get("data", "")
        if digest:
            yield Node(f"data {digest}", "data", f"data {digest[:SHOWN]}", digest), run, "all"
        return
    splits = ", ".join(f"{len(images)} {split}" for split, images in seen.images.items())
    for root, digest in seen.folders.items():
        yield Node(f"data {digest}", "data", f"{Path(root).name}\n{digest[:SHOWN]}", f"{digest} {root}"), run, splits


def _parent(everyone: list[ModelVersion], version: ModelVersion) -> ModelVersion | None:
    return next((one for one in everyone if one.digest == version.parent_digest), None)


def find_answering(registry: Registry, digest: str) -> ModelVersion:
    """Return the version with the digest of an answer; the one that was registered first.

    Raises
    ------
    RequestError
        It is not a digest, or the beginning of two different ones.
    ModelNotFoundError
        No version has it.
    """
    if not _HASH.fullmatch(digest):
        raise RequestError(
            f"expected the digest of a model, 8 to 64 hexadecimal digits, got {digest!r}",
            field="digest",
            hint="an answer contains it: in JSON under model, over HTTP in a header",
        )
    found = [one for one in registry.find_digest(digest) if one.digest]
    if not found:
        raise ModelNotFoundError(
            f"no version has the digest {digest}", field="digest", hint="list the versions: cytoray models list"
        )
    if len({one.digest for one in found}) > 1:
        names = ", ".join(one.reference for one in found)
        raise RequestError(
            f"expected one model, but {names} begin with {digest}", field="digest", hint="give more digits"
        )
    return min(found, key=lambda one: one.created)


def versions_that_saw(registry: Registry, data: Dataset | str) -> tuple[Sighting, ...]:
    """Return every version that was trained or chosen with some data.

    Parameters
    ----------
    data
        A data set, of which single images count as well, or a content hash, or its beginning.

    Raises
    ------
    RequestError
        The text is not a hash.
    """
    if isinstance(data, str) and not _HASH.fullmatch(data):
        raise RequestError(
            f"expected a data set folder or its hash, got {data!r}",
            field="data",
            hint="check the path; cytoray data hash FOLDER prints the hash",
        )
    digest = data if isinstance(data, str) else hash_dataset(data)
    images = frozenset() if isinstance(data, str) else frozenset(image_digests(data))
    found = []
    for version in (one for model in registry.list() for one in model.versions):
        seen = read_seen_data(registry.run(version.run_id)) if version.run_id else None
        hashes = [version.tags.get("data", ""), *_hashes(seen)]
        whole = any(one.startswith(digest) for one in hashes)
        shared = {split: len(images & known) for split, known in seen.images.items()} if seen else {}
        shared = {split: count for split, count in shared.items() if count}
        if whole or shared:
            found.append(Sighting(version, whole, shared))
    return tuple(found)


def _hashes(seen: SeenData | None) -> list[str]:
    return [] if seen is None else [seen.digest, *seen.folders.values()]

"""Findings about data sets in stores, kept, so that a training that goes on does not read everything again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from cytoray_analysis.files import write_whole
from cytoray_services.datasets.check.findings import Finding
from cytoray_services.datasets.dataset import Dataset, Item
from cytoray_services.settings import load_settings


def remembered(dataset: Dataset, question: dict[str, Any], find: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what was found when the same was asked of the same files; files of this machine are read each time.

    Parameters
    ----------
    question
        What else the findings depend on.
    find
        Looks for them.
    """
    if not all(_is_remote(dataset, item) for item in dataset.items):
        return find()
    items = [
        [str(item.image), item.truth and str(item.truth), item.split, item.label, item.box] for item in dataset.items
    ]
    facts = [
        version("cytoray"),
        [remote.identity for remote in dataset.remotes],
        [dataset.truth_kind, dataset.derived_split, str(dataset.root), items],
        question,
    ]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    path = load_settings().cache / "checks" / f"{key}.json"
    if path.is_file():
        return [Finding(**finding) for finding in json.loads(path.read_text(encoding="utf-8"))]
    findings = find()
    write_whole(path, json.dumps([asdict(finding) for finding in findings]))
    return findings


def _is_remote(dataset: Dataset, item: Item) -> bool:
    return any(
        item.image.is_relative_to(remote.root) and (item.truth is None or item.truth.is_relative_to(remote.root))
        for remote in dataset.remotes
    )

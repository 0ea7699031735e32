"""Cache of findings, so that a resumed training run does not read all files again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from cytoray_analysis.files import write_whole
from cytoray_services.datasets.check.findings import Finding
from cytoray_services.datasets.dataset import Dataset, Item
from cytoray_services.records import reading_cache
from cytoray_services.settings import load_settings

logger = logging.getLogger(__name__)


def remembered(
    dataset: Dataset, question: dict[str, Any], find: Callable[[], list[Finding]], known_as: str | None = None
) -> list[Finding]:
    """Return the cached findings for the same files and question.

    Local files are read each time, unless `known_as` identifies their contents; then also with errors.

    Parameters
    ----------
    question
        What else the findings depend on.
    find
        Computes the findings.
    known_as
        A text that changes with the contents of the files or the version of the checks.
    """
    elsewhere = all(_is_remote(dataset, item) for item in dataset.items)
    if not elsewhere and known_as is None:
        return find()
    items = [[*map(str, item.files), item.split, item.label, item.box] for item in dataset.items]
    facts = [
        version("cytoray"),
        [remote.identity for remote in dataset.remotes],
        [dataset.truth_kind, dataset.derived_split, dataset.derived_test, str(dataset.root), items],
        [dataset.group_column, *map(str, (*dataset.lent, *dataset.unused)), *(item.group for item in dataset.items)],
        question,
        dataset.selection.given(),
        *([] if elsewhere else [known_as]),
    ]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    path = load_settings().cache / "checks" / f"{key}.json"
    if path.is_file():
        with reading_cache(path, "the findings of an earlier check"):
            return [Finding(**finding) for finding in json.loads(path.read_text(encoding="utf-8"))]
    findings = find()
    if elsewhere or not any(finding.severity == "error" for finding in findings):
        try:
            write_whole(path, json.dumps([asdict(finding) for finding in findings]))
        except OSError as error:  # the check was done, and will be repeated
            logger.warning("cannot cache the findings, so the next check takes as long: %s", error)
    return findings


def _is_remote(dataset: Dataset, item: Item) -> bool:
    return any(all(path.is_relative_to(remote.root) for path in item.files) for remote in dataset.remotes)

"""Export of a bundle with its record of the registry in the head of its card."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cytoray_analysis.bundle import CARD, FILES, Bundle
from cytoray_services.registry import ModelVersion, Registry
from cytoray_services.registry.card_record import VersionRecord, record_of, with_record

_RECIPE = "recipe.yaml"


def record_of_version(version: ModelVersion, registry: Registry, *, recipe: bool) -> VersionRecord:
    """Return the record of a version in the registry.

    Parameters
    ----------
    recipe
        Whether to include the recipe, which contains folder names of the training machine.
    """
    text = registry.run(version.run_id).read_text(_RECIPE) if recipe and version.run_id else None
    return VersionRecord(version.reference, version.metrics, version.tags, text or "")


@contextmanager
def leaving(bundle: Bundle, record: VersionRecord) -> Iterator[Bundle]:
    """Yield a temporary copy of a bundle with a record in its card; its digest is the same."""
    with tempfile.TemporaryDirectory(prefix="cytoray-export-") as scratch:
        folder = Path(scratch, "bundle")
        folder.mkdir()
        for name in FILES - {CARD}:
            shutil.copyfile(bundle.folder / name, folder / name)
        card = (bundle.folder / CARD).read_text(encoding="utf-8")
        (folder / CARD).write_text(with_record(card, record), encoding="utf-8")
        yield replace(bundle, folder=folder)


def record_of_bundle(bundle: Bundle) -> VersionRecord:
    """Return the record in a bundle, from another registry or from its training run."""
    return record_of((bundle.folder / CARD).read_text(encoding="utf-8"))

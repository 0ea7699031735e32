"""The check of a folder, as ``cytoray data check`` puts it together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cytoray_services.datasets.check import Finding, check_dataset, open_for_check, usual_splits


def check_folder(root: Path, *, columns: Mapping[str, str] | None = None, axes: str | None = None) -> list[Finding]:
    """Open and check a data set; what keeps it from being opened is a finding too."""
    opened = open_for_check(root, columns=columns)
    if isinstance(opened, Finding):
        return [opened]
    return check_dataset(opened, axes=axes, required_splits=usual_splits(opened))

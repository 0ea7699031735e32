"""The recorded origin of the code of a model, with git and without it."""

from pathlib import Path

import pytest

from cytoray_training.plan.code_version import code_version


def test_without_git_the_code_is_named_by_its_builder_or_its_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CYTORAY_REVISION", raising=False)
    assert code_version().startswith("cytoray ")
    monkeypatch.setenv("CYTORAY_REVISION", "2f1e9c4")
    assert code_version() == "2f1e9c4"

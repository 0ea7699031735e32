"""A registry with three versions of a model, the first of them champion, made once for all tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.networks import build_network
from cytoray_services.registry import Registry
from registry_stores import local

NETWORK = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 3, "widths": [4, 8]})


@pytest.fixture(scope="session")
def three_versions(registry_without_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = Path(shutil.copytree(registry_without_models, tmp_path_factory.mktemp("three") / "home"))
    registry = Registry.open(local(home))
    weights = build_network(NETWORK.name, NETWORK.arguments).state_dict()
    for number in range(3):
        spec = BundleSpec(
            name="cells", task=TaskChoice(), input=ModelInput(), network=NETWORK, provenance={"number": number}
        )
        folder = tmp_path_factory.mktemp("bundle") / "bundle"
        write_bundle(folder, spec, weights, test_input=np.zeros((1, 16, 16), np.float32), card="# cells")
        registry.register(folder, "cells", alias=None)
    registry.promote("cells", "1")
    return home


@pytest.fixture
def registry(three_versions: Path, cytoray_home: Path) -> Registry:
    return Registry.open(local(Path(shutil.copytree(three_versions, cytoray_home))))

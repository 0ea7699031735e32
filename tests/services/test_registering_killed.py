"""A process that dies while it registers a model: doing it again leaves one version, one alias and one record of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.networks import build_network
from cytoray_services.registry import Registry
from cytoray_services.registry.artifacts import RunFiles
from cytoray_services.settings import load_settings

NETWORK = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 4, "widths": [4, 8]})


@pytest.fixture
def registry(registry_home: Path) -> Registry:
    return Registry.open(load_settings({"CYTORAY_HOME": str(registry_home)}))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    spec = BundleSpec(name="cells", task=TaskChoice(), input=ModelInput(), network=NETWORK)
    weights = build_network(NETWORK.name, NETWORK.arguments).state_dict()
    test_input = np.zeros((1, 16, 16), np.float32)
    return write_bundle(tmp_path / "bundle", spec, weights, test_input=test_input, card="# cells\n").folder


def die(patched: pytest.MonkeyPatch, where: type, method: str, *, after: bool) -> None:
    """Let the process die before or after a step of the registration."""
    step = getattr(where, method)

    def dying(*arguments: Any, **named: Any) -> None:
        if after:
            step(*arguments, **named)
        raise KeyboardInterrupt

    patched.setattr(where, method, dying)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "after"),
    [
        ("add_folder", False),
        ("create_model_version", False),
        ("create_model_version", True),
        ("set_registered_model_alias", True),
        ("set_registered_model_tag", True),
    ],
)
def test_registering_again_after_a_death_at_any_step_makes_one_version(
    registry: Registry, bundle: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    from mlflow import MlflowClient

    registry.register(bundle, "cells")
    run = registry.start_run("cells", "first")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        die(patched, RunFiles if step == "add_folder" else MlflowClient, step, after=after)
        registry.register(bundle, "cells", run_id=run.run_id)

    version = registry.register(bundle, "cells", run_id=run.run_id)

    assert (version.version, version.aliases) == ("2", ("candidate",))
    assert len(registry.versions("cells")) == 2
    moves = [(move.before, move.after) for move in registry.history("cells")]
    assert moves == [(None, "1"), ("1", "2")]
    assert registry.fetch(version).name == version.digest


def test_going_on_after_a_death_takes_the_alias_from_no_newer_version(
    registry: Registry, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    slow, quick = registry.start_run("cells", "slow"), registry.start_run("cells", "quick")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        die(patched, MlflowClient, "create_model_version", after=True)
        registry.register(bundle, "cells", run_id=slow.run_id)
    registry.register(bundle, "cells", run_id=quick.run_id)

    assert registry.register(bundle, "cells", run_id=slow.run_id).aliases == ()
    assert registry.resolve("cells@candidate").version == "2"

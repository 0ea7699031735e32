"""Several people move an alias at the same moment, from processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_analysis.networks import build_network
from cytoray_services.registry import Registry, claim
from registry_stores import Store

NETWORK = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 3, "widths": [4, 8]})


@pytest.fixture
def registry(store: Store, tmp_path: Path) -> Registry:
    """Return a registry with three versions of a model, the first of which is the champion."""
    registry = Registry.open(store.settings)
    spec = BundleSpec(name="cells", task=TaskChoice(), input=ModelInput(), network=NETWORK)
    weights = build_network(NETWORK.name, NETWORK.arguments).state_dict()
    bundle = write_bundle(tmp_path / "b", spec, weights, test_input=np.zeros((1, 16, 16), np.float32), card="#")
    for _ in range(3):
        registry.register(bundle.folder, "cells", alias=None)
    registry.promote("cells", "1", expected=None)
    return registry


def processes(store: Store, folder: Path, programs: list[str]) -> list[subprocess.CompletedProcess[str]]:
    """Run programs that wait for each other before they begin."""
    start = """
        import sys, time
        from pathlib import Path
        from cytoray_analysis.errors import RequestError
        from cytoray_services.registry import Registry
        from cytoray_services.settings import Settings
        registry = Registry.open(Settings.model_validate({settings!r}))
        registry.resolve("cells")
        Path({folder!r}, "ready-{number}").touch()
        while len(list(Path({folder!r}).glob("ready-*"))) < {count}:
            time.sleep(0.002)
    """

    def run(number: int) -> subprocess.CompletedProcess[str]:
        settings = store.settings.model_dump(mode="json")
        text = textwrap.dedent(start).format(
            settings=settings, folder=str(folder), number=number, count=len(programs)
        ) + textwrap.dedent(programs[number])
        command = [sys.executable, "-c", text]
        environment = os.environ | store.environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, range(len(programs))))


@pytest.mark.slow
def test_of_two_who_promote_at_once_one_wins_and_the_other_gets_an_error(
    store: Store, registry: Registry, tmp_path: Path
) -> None:
    program = """
        try:
            registry.promote("cells", "{version}", expected="1", reason="mine is better")
            print("won")
        except RequestError as error:
            print("told:", error.message)
    """
    done = processes(store, tmp_path, [program.format(version=version) for version in ("2", "3")])
    assert [process.returncode for process in done] == [0, 0], done
    answers = [process.stdout.strip() for process in done]
    winner = answers.index("won")
    told = answers[1 - winner]
    assert told.startswith("told: expected cells@champion to be version 1, got version")
    assert "moved by" in told
    version = ("2", "3")[winner]
    assert registry.resolve("cells@champion").version == version
    moves = [(move.before, move.after) for move in registry.history("cells")]
    assert moves == [(None, "1"), ("1", version)]
    assert [one.version for one in registry.versions("cells")] == ["3", "2", "1"]


@pytest.mark.slow
def test_moves_without_an_expectation_wait_for_each_other_and_are_all_recorded(
    store: Store, registry: Registry, tmp_path: Path
) -> None:
    program = """
        for turn in range(4):
            registry.promote("cells", {version!r} if turn % 2 == 0 else "1")
    """
    done = processes(store, tmp_path, [program.format(version=version) for version in ("2", "3")])
    assert [process.returncode for process in done] == [0, 0], done
    moves = registry.history("cells")
    assert all(later.before == earlier.after for earlier, later in pairwise(moves))
    assert registry.resolve("cells@champion").version == moves[-1].after


@pytest.mark.slow
def test_a_claim_of_a_process_that_died_does_not_block_the_alias(
    store: Store, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry._connection.client() as client:
        client.create_experiment("cytoray/claims/cells/champion/1.0", artifact_location="file:///nonexistent")
    monkeypatch.setattr(claim, "SECONDS_OF_PATIENCE", 0.2)
    with pytest.raises(PlatformError, match="another process is moving cells@champion"):
        registry.promote("cells", "2")
    assert registry.resolve("cells@champion").version == "1"
    monkeypatch.setattr(claim, "SECONDS_UNTIL_ABANDONED", 0.0)
    assert registry.promote("cells", "2").version == "2"


def test_claims_stay_out_of_the_list_of_experiments(store: Store, registry: Registry) -> None:
    with registry._connection.client() as client:
        names = [experiment.name for experiment in client.search_experiments()]
    assert not [name for name in names if "claims" in name]


@pytest.mark.slow
def test_rolling_back_takes_seconds(store: Store, registry: Registry) -> None:
    registry.promote("cells", "2", expected="1")
    started = time.monotonic()
    assert registry.rollback("cells").version == "1"
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_an_expectation_that_was_overtaken_changes_nothing(store: Store, registry: Registry) -> None:
    registry.promote("cells", "2")
    with pytest.raises(
        RequestError, match="expected cells@champion to be version 1, got version 2, moved by"
    ) as caught:
        registry.promote("cells", "3", expected="1")
    assert caught.value.exit_status == 2
    assert registry.resolve("cells@champion").version == "2"


def test_a_reason_too_long_for_the_record_is_refused_before_anything_moves(store: Store, registry: Registry) -> None:
    with pytest.raises(RequestError, match="at most 2000 characters"):
        registry.promote("cells", "2", reason="x" * 2001)
    assert registry.resolve("cells@champion").version == "1"

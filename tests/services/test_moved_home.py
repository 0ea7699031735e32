"""A home folder that was moved or copied: what was registered is found below it, and nothing goes to the old place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import CytorayError
from cytoray_analysis.networks import build_network
from cytoray_services.registry import Registry, load_bundle
from cytoray_services.registry.artifacts import present_uri
from cytoray_services.settings import Settings, load_settings

NETWORK = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 4, "widths": [4, 8]})
RUN = "0123456789abcdef0123456789abcdef"


def make_bundle(folder: Path, name: str) -> Path:
    spec = BundleSpec(name=name, task=TaskChoice(), input=ModelInput(), network=NETWORK)
    weights = build_network(NETWORK.name, NETWORK.arguments).state_dict()
    write_bundle(folder, spec, weights, test_input=np.zeros((1, 16, 16), np.float32), card="# cells\n")
    return folder


def settings_of(home: Path, **variables: str) -> Settings:
    return load_settings({"CYTORAY_HOME": str(home), **variables})


def rename(old: Path, new: Path) -> None:
    old.rename(new)


def copy(old: Path, new: Path) -> None:
    shutil.copytree(old, new)


@pytest.mark.slow
@pytest.mark.parametrize("move", [rename, copy])
def test_models_runs_and_new_versions_of_a_moved_home_are_below_it(
    tmp_path: Path, move: Callable[[Path, Path], None], registry_without_models: Path
) -> None:
    old, new = tmp_path / "old" / "artifacts" / "home", tmp_path / "new home"
    shutil.copytree(registry_without_models, old)
    registry = Registry.open(settings_of(old))
    with registry.start_run("cells", "first") as run:
        run.log_text("# Card\n", "cards/README.md")
        first = registry.register(make_bundle(tmp_path / "a", "cells"), "cells", run_id=run.run_id)
    move(old, new)
    before = sorted(old.rglob("*")) if old.exists() else []

    moved = Registry.open(settings_of(new))
    assert moved.run(run.run_id).read_text("cards/README.md") == "# Card\n"
    bundle, version = load_bundle("cells", moved.settings)
    assert bundle.digest == first.digest
    assert version is not None
    assert version.source.startswith(new.as_uri())
    # A resumed run, a new run of the same experiment, a run of its own, and an alias that moves.
    with moved.start_run("cells", "first", run_id=run.run_id) as again:
        again.log_text("more", "more.txt")
        moved.register(make_bundle(tmp_path / "b", "cells"), "cells", run_id=again.run_id)
    with moved.start_run("cells", "second") as another:
        another.log_text("text", "text.txt")
    second = moved.register(make_bundle(tmp_path / "c", "cells"), "cells")
    moved.promote("cells", second.version)
    assert moved.run(another.run_id).read_text("text.txt") == "text"
    assert load_bundle("cells@champion", moved.settings)[0].folder.is_relative_to(new)
    assert (sorted(old.rglob("*")) if old.exists() else []) == before


def test_a_version_that_was_known_while_the_registry_is_away_is_found_after_a_move(
    tmp_path: Path, registry_without_models: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(registry_without_models, old)
    registry = Registry.open(settings_of(old))
    registry.register(make_bundle(tmp_path / "a", "cells"), "cells")
    assert registry.resolve_or_known("cells")[0].version == "1"
    old.rename(new)
    moved = Registry.open(settings_of(new))
    version, _ = moved.resolve_or_known("cells/1")
    assert moved.fetch(version).is_relative_to(new)


def test_files_elsewhere_stay_where_they_are(tmp_path: Path, registry_without_models: Path) -> None:
    """CYTORAY_ARTIFACTS names a folder whose addresses look like those of a home."""
    store = tmp_path / "store" / "artifacts"
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(registry_without_models, old)
    registry = Registry.open(settings_of(old, CYTORAY_ARTIFACTS=str(store)))
    version = registry.register(make_bundle(tmp_path / "a", "cells"), "cells")
    old.rename(new)
    for variables in ({"CYTORAY_ARTIFACTS": str(store)}, {}):
        moved = Registry.open(settings_of(new, **variables))
        assert moved.resolve("cells").source == version.source
        shutil.rmtree(new / "models", ignore_errors=True)
        assert moved.fetch(version).is_relative_to(new)


def test_files_that_are_nowhere_are_an_error_in_words(tmp_path: Path, registry_home: Path) -> None:
    settings = settings_of(registry_home)
    Registry.open(settings).register(make_bundle(tmp_path / "a", "cells"), "cells")
    shutil.rmtree(settings.artifacts)
    with pytest.raises(CytorayError, match="cells/1"):
        load_bundle("cells", settings)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/old/artifacts/cells/" + RUN + "/artifacts",
        "mlflow-artifacts:/1/" + RUN + "/artifacts",
        "file://server/old/artifacts/cells/" + RUN + "/artifacts",
        "file:///somewhere/else",
        "file:///old/artifacts/cells/short/artifacts",
        "",
    ],
)
def test_addresses_that_are_below_no_home_are_left_alone(tmp_path: Path, uri: str) -> None:
    assert present_uri(uri, settings_of(tmp_path)) == uri


def test_a_colleague_who_shares_the_database_keeps_his_files(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "mine", MLFLOW_TRACKING_URI="postgresql://server/mlflow")
    theirs = (tmp_path / "theirs" / "artifacts" / "cells" / RUN / "artifacts").as_uri()
    assert present_uri(theirs, settings) == theirs
    (settings.artifacts / "cells").mkdir(parents=True)
    assert present_uri(theirs, settings) == (settings.artifacts / "cells" / RUN / "artifacts").as_uri()
    (tmp_path / "theirs" / "artifacts" / "cells").mkdir(parents=True)
    assert present_uri(theirs, settings) == theirs


segments = st.lists(st.sampled_from(["a", "artifacts", "über uns", "x%20y", RUN, "#1?"]), min_size=1, max_size=4)


@given(segments, segments.filter(lambda parts: "artifacts" not in parts and RUN not in parts))
def test_whatever_the_old_place_was_called_the_files_are_below_the_new_one(
    home: list[str], experiment: list[str]
) -> None:
    settings = settings_of(Path("/nowhere/new"))
    old = Path("/nowhere", "old", *home, "artifacts", *experiment, RUN, "artifacts", "bundle-1")
    expected = settings.artifacts.joinpath(*experiment, RUN, "artifacts", "bundle-1")
    assert present_uri(old.as_uri(), settings) == expected.as_uri()


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_files_of_a_model_can_be_read_by_those_whom_the_umask_lets(
    tmp_path: Path, registry_home: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        bundle = make_bundle(tmp_path / "a", "cells")
        for path in bundle.iterdir():  # as earlier releases wrote them
            path.chmod(0o600)
        settings = settings_of(registry_home)
        registry = Registry.open(settings)
        fetched = registry.fetch(registry.register(bundle, "cells"))
        with registry.start_run("cells", "first") as run:
            run.log_file(bundle / "weights.safetensors", "weights")
    finally:
        os.umask(before)
    found = [path for folder in (settings.artifacts, fetched) for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in found} >= {"weights.safetensors", "bundle.yaml", "README.md"}
    assert {path.stat().st_mode & 0o777 for path in found} == {0o666 & ~umask}
    assert {path.stat().st_mode & 0o777 for path in (fetched, *settings.artifacts.rglob("bundle-*"))} == {
        0o777 & ~umask
    }

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import (
    BundleError,
    MissingFileError,
    ModelNotFoundError,
    PlatformError,
    RequestError,
)
from cytoray_analysis.networks import build_network
from cytoray_services.free_ports import free_port
from cytoray_services.registry import ModelVersion, Registry, load_bundle
from cytoray_services.settings import Settings
from registry_stores import STORES, Store, local, open_store

NETWORK = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 4, "widths": [4, 8]})


def make_bundle(folder: Path, name: str = "cells", **provenance: object) -> Path:
    spec = BundleSpec(name=name, task=TaskChoice(), input=ModelInput(), network=NETWORK, provenance=dict(provenance))
    weights = build_network(NETWORK.name, NETWORK.arguments).state_dict()
    write_bundle(folder, spec, weights, test_input=np.zeros((1, 16, 16), np.float32), card="# cells\n")
    return folder


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry.open(store.settings)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", recipe="abc", data={"train": "d1", "val": "d2"}, parent=None)


# Registering and finding


def test_a_registered_version_knows_where_it_comes_from(registry: Registry, bundle: Path) -> None:
    with registry.start_run("cells", "first", {"training": {"epochs": 3}}, {"git": "f00"}) as run:
        version = registry.register(
            bundle, "cells", run_id=run.run_id, tags={"git": "f00"}, metrics={"ap50": 0.75, "pq": 0.5}
        )
    assert version.reference == "cells/1"
    assert version.aliases == ("candidate",)
    assert version.run_id == run.run_id
    assert version.metrics == {"ap50": 0.75, "pq": 0.5}
    assert version.tags["data.train"] == "d1"
    assert version.tags["recipe"] == "abc"
    assert version.tags["git"] == "f00"
    assert version.tags["task"] == "segmentation"
    assert "parent" not in version.tags
    assert abs((datetime.now(UTC) - version.created).total_seconds()) < 60
    assert registry.resolve("cells/1") == version


def test_a_name_means_the_champion_then_the_candidate_then_the_newest(registry: Registry, bundle: Path) -> None:
    def meant() -> str:
        return registry.resolve("cells").version

    registry.register(bundle, "cells", alias=None)
    registry.register(bundle, "cells", alias=None)
    assert meant() == "2"
    registry.promote("cells", "1", "candidate")
    assert meant() == "1"
    registry.promote("cells", "2")
    assert meant() == "2"
    assert registry.resolve("cells@candidate").version == "1"
    assert registry.resolve("cells@champion").aliases == ("champion",)


@pytest.mark.slow
def test_versions_are_listed_newest_first_beyond_nine(registry: Registry, bundle: Path) -> None:
    for _ in range(11):
        registry.register(bundle, "cells", alias=None)
    assert [version.version for version in registry.versions("cells")] == [str(n) for n in range(11, 0, -1)]
    assert registry.resolve("cells").version == "11"


def test_a_model_without_a_run_can_be_registered_and_fetched(registry: Registry, bundle: Path) -> None:
    version = registry.register(bundle, "cells")
    assert version.run_id is not None
    loaded, found = load_bundle("cells", registry.settings)
    assert found == version
    assert loaded.digest == version.digest
    assert loaded.folder == registry.settings.models / version.digest


def test_registering_again_from_a_resumed_run_makes_no_second_version(
    registry: Registry, bundle: Path, tmp_path: Path
) -> None:
    run = registry.start_run("cells", "first")
    first = registry.register(bundle, "cells", run_id=run.run_id)
    assert registry.register(bundle, "cells", run_id=run.run_id) == first
    other = registry.register(make_bundle(tmp_path / "other"), "cells", run_id=run.run_id)
    assert other.version == "2"
    assert registry.fetch(first).name == first.digest
    assert registry.fetch(other).name == other.digest


def test_a_score_that_is_no_number_is_reported_and_keeps_nothing_from_being_listed(
    registry: Registry, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry.register(bundle, "cells", metrics={"f1": 0.5, "iou": 0.25})
    with registry._connection.client() as client:
        client.set_model_version_tag("cells", "1", "metric.f1", "0,5 or so")
    assert registry.list()[0].versions[0].metrics == {"iou": 0.25}
    assert "metric.f1 of cells/1" in caplog.text
    assert registry.resolve("cells").version == "1"


def test_an_unknown_name_gets_a_suggestion_and_a_list(registry: Registry, bundle: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="the registry contains no models"):
        registry.resolve("nuclei")
    registry.register(bundle, "nuclei")
    registry.register(bundle, "worms")
    with pytest.raises(ModelNotFoundError, match="nuclei, worms") as caught:
        registry.resolve("nuclie")
    assert caught.value.hint == "did you mean 'nuclei'?"
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("reference", ["cells/7", "cells@champion"])
def test_an_unknown_version_or_alias_says_which_there_are(registry: Registry, bundle: Path, reference: str) -> None:
    registry.register(bundle, "cells")
    with pytest.raises(ModelNotFoundError, match=r"there are: @candidate, /1"):
        registry.resolve(reference)


def test_an_impossible_name_is_refused_before_anything_is_stored(registry: Registry, bundle: Path) -> None:
    with pytest.raises(RequestError, match="name of a model"):
        registry.register(bundle, "Cells/1")
    assert registry.list() == ()


def test_a_damaged_bundle_is_not_registered(registry: Registry, bundle: Path) -> None:
    (bundle / "extra.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(BundleError, match=r"extra\.pkl"):
        registry.register(bundle, "cells")
    assert registry.list() == ()


# Aliases


@pytest.mark.slow
def test_rolling_back_twice_goes_back_two_versions_and_everything_is_recorded(registry: Registry, bundle: Path) -> None:
    for _ in range(3):
        registry.register(bundle, "cells", alias=None)
    for number in ("1", "2", "3"):
        registry.promote("cells", number, reason=f"trial {number}")
    assert registry.rollback("cells", reason="blurred").version == "2"
    assert registry.rollback("cells").version == "1"
    with pytest.raises(RequestError, match="expected a previous version of cells@champion"):
        registry.rollback("cells")
    moves = registry.history("cells")
    assert [(move.action, move.before, move.after) for move in moves] == [
        ("promote", None, "1"),
        ("promote", "1", "2"),
        ("promote", "2", "3"),
        ("rollback", "3", "2"),
        ("rollback", "2", "1"),
    ]
    assert moves[0].reason == "trial 1"
    assert "@" in moves[0].who
    assert registry.resolve("cells@champion").version == "1"


def test_promoting_what_is_promoted_changes_nothing(registry: Registry, bundle: Path) -> None:
    registry.register(bundle, "cells", alias=None)
    registry.promote("cells", "1")
    assert registry.promote("cells", "1").aliases == ("champion",)
    assert len(registry.history("cells")) == 1


@pytest.mark.slow
def test_promoting_an_unknown_version_moves_nothing(registry: Registry, bundle: Path) -> None:
    registry.register(bundle, "cells")
    with pytest.raises(ModelNotFoundError, match="version 9"):
        registry.promote("cells", "9")
    with pytest.raises(ModelNotFoundError, match="no model"):
        registry.promote("worms", "1")
    assert registry.resolve("cells").aliases == ("candidate",)


# Fetching


def test_a_fetched_bundle_needs_no_registry(store: Store, registry: Registry, bundle: Path) -> None:
    version = registry.register(bundle, "cells")
    folder = registry.fetch(version)
    store.files.clear()
    nowhere = Settings(home=store.settings.home, tracking_uri=f"http://127.0.0.1:{free_port()}")
    assert Registry.open(nowhere).fetch(version) == folder


def test_files_that_were_changed_in_the_store_are_refused(store: Store, registry: Registry, bundle: Path) -> None:
    version = registry.register(bundle, "cells")
    (stored,) = (name for name in store.files.names() if name.endswith("weights.safetensors"))
    other = make_bundle(store.settings.home.parent / "other")
    store.files.replace(stored, (other / "weights.safetensors").read_bytes())
    with pytest.raises(BundleError, match=r"expected the files of cells/1"):
        registry.fetch(version)
    assert list(registry.settings.models.iterdir()) == []


def test_files_that_were_changed_in_the_cache_are_refused(registry: Registry, bundle: Path) -> None:
    version = registry.register(bundle, "cells")
    cached = registry.fetch(version) / "weights.safetensors"
    shutil.copy(make_bundle(bundle.parent / "other") / "weights.safetensors", cached)
    with pytest.raises(BundleError, match="expected the files of cells/1") as caught:
        load_bundle("cells/1", registry.settings)
    assert "remove this folder" in (caught.value.hint or "")


@pytest.mark.parametrize("digest", ["", "../../outside", "A" * 64])
def test_a_digest_that_is_none_never_becomes_a_path(registry: Registry, digest: str) -> None:
    foreign = ModelVersion("cells", "1", (), None, digest, datetime.now(UTC), {}, {}, "file:///x")
    with pytest.raises(BundleError, match="not registered by Cytoray"):
        registry.fetch(foreign)


def test_a_bundle_folder_is_loaded_without_any_registry(bundle: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "unused", tracking_uri="http://127.0.0.1:9")
    loaded, version = load_bundle(str(bundle), settings)
    assert loaded.folder == bundle
    assert version is None
    with pytest.raises(ModelNotFoundError, match="expected a bundle folder"):
        load_bundle("./nothing/here", settings)
    assert not settings.home.exists()


# Runs


def read_run(settings: Settings, run_id: str) -> dict[str, object]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=settings.tracking_uri)
    run = client.get_run(run_id)
    return {
        "status": run.info.status,
        "params": run.data.params,
        "tags": run.data.tags,
        "loss": [(metric.step, metric.value) for metric in client.get_metric_history(run_id, "loss")],
    }


def test_a_run_records_numbers_parameters_and_files(store: Store, registry: Registry, tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    picture.write_bytes(b"png")
    with registry.start_run("cells", "first", {"training": {"epochs": 3}}, {"git": "f00"}) as run:
        for step in range(5):
            run.log_metrics({"loss": 1 / (step + 1), "lr": 0.1}, step)
        run.log_file(picture, "pictures")
        run.log_text("# Card\n", "cards/README.md")
        with pytest.raises(MissingFileError):
            run.log_file(tmp_path / "missing.png")
    seen = read_run(registry.settings, run.run_id)
    assert seen["status"] == "FINISHED"
    assert seen["params"] == {"training.epochs": "3"}
    assert seen["loss"] == [(step, 1 / (step + 1)) for step in range(5)]
    assert {Path(name).name for name in store.files.names()} == {"curve.png", "README.md"}
    assert run.read_text("cards/README.md") == "# Card\n"
    assert run.read_text("cards/missing.md") is None


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_that_breaks_is_marked_and_keeps_its_numbers(
    registry: Registry, error: type[BaseException], status: str
) -> None:
    run = registry.start_run("cells", "first")
    with pytest.raises(error), run:  # noqa: PT012
        run.log_metrics({"loss": 2.0}, 0)
        run.log_metrics({"loss": 1.0}, 1)
        raise error
    seen = read_run(registry.settings, run.run_id)
    assert seen["status"] == status
    assert seen["loss"] == [(0, 2.0), (1, 1.0)]


def test_a_resumed_run_goes_on_where_it_was(registry: Registry) -> None:
    first = registry.start_run("cells", "first", {"epochs": 3})
    first.log_metrics({"loss": 2.0}, 0)
    with registry.start_run("cells", "first", {"epochs": 5, "seed": 1}, run_id=first.run_id) as again:
        assert read_run(registry.settings, first.run_id)["status"] == "RUNNING"
        again.log_metrics({"loss": 1.0}, 1)
    seen = read_run(registry.settings, first.run_id)
    assert again.run_id == first.run_id
    assert seen["params"] == {"epochs": "3", "seed": "1"}
    assert seen["loss"] == [(0, 2.0), (1, 1.0)]


def test_an_unknown_run_cannot_be_resumed(registry: Registry) -> None:
    with pytest.raises(ModelNotFoundError, match="not found"):
        registry.start_run("cells", "first", run_id="0" * 32)


def test_metrics_wait_while_mlflow_is_away(
    registry: Registry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = registry.start_run("cells", "first")
    run.log_metrics({"loss": 3.0}, 0)
    reachable = run._connection.uri
    monkeypatch.setattr("cytoray_services.registry.run.SECONDS_BETWEEN_BATCHES", 0.0)
    run._connection.uri = f"http://127.0.0.1:{free_port()}"
    run.log_metrics({"loss": 2.0}, 1)
    assert "1 metrics are kept" in caplog.text
    with pytest.raises(PlatformError, match="does not answer"):
        run.end()
    run._connection.uri = reachable
    run.end()
    assert read_run(registry.settings, run.run_id)["loss"] == [(0, 3.0), (1, 2.0)]


# The platform underneath


@pytest.mark.parametrize("scheme", ["http", "https", "postgresql"])
def test_a_silent_mlflow_is_noticed_within_seconds(tmp_path: Path, scheme: str) -> None:
    uri = f"{scheme}://user:secret@127.0.0.1:{free_port()}/mlflow"
    started = time.monotonic()
    with pytest.raises(PlatformError, match="does not answer") as caught:
        Registry.open(Settings(home=tmp_path, tracking_uri=uri)).resolve("cells")
    assert time.monotonic() - started < 5
    assert "MLFLOW_TRACKING_URI" in (caught.value.hint or "")
    assert "secret" not in json.dumps(caught.value.describe())


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="cannot write"):
        Registry.open(local(tmp_path / "file" / "home")).start_run("cells", "first")


@dataclass(frozen=True)
class SharedRegistry:
    """What two processes left that worked in one new registry at the same time."""

    processes: list[subprocess.CompletedProcess[str]]
    folder: Path
    registry: Registry


@pytest.fixture(scope="module", params=STORES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SharedRegistry:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("working-directory")
    store = open_store(request, home)
    bundle = make_bundle(tmp_path_factory.mktemp("bundles") / "bundle")
    script = textwrap.dedent(
        f"""
        import os, sys
        from cytoray_services.registry import Registry
        from cytoray_services.settings import Settings
        assert "mlflow" not in sys.modules
        before = dict(os.environ)
        registry = Registry.open(Settings.model_validate({store.settings.model_dump(mode="json")!r}))
        for turn in range(5):
            with registry.start_run("cells", f"run {{turn}}") as run:
                version = registry.register({str(bundle)!r}, "cells", run_id=run.run_id)
                run.log_metrics({{"loss": float(turn)}}, turn)
            registry.promote("cells", version.version)
            for _ in range(10):
                registry.fetch(registry.resolve("cells@champion"))
        assert dict(os.environ) == before
        from mlflow.telemetry.client import get_telemetry_client
        assert get_telemetry_client() is None
        """
    )
    command = [sys.executable, "-c", script]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= store.environment

    def run(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor() as pool:
        processes = list(pool.map(run, range(2)))
    return SharedRegistry(processes, folder, Registry.open(store.settings))


@pytest.mark.slow
def test_two_processes_that_share_a_new_registry_lose_nothing(shared: SharedRegistry) -> None:
    assert [process.returncode for process in shared.processes] == [0, 0], shared.processes
    assert len(shared.registry.versions("cells")) == 10
    promoted = {move.after for move in shared.registry.history("cells") if move.alias == "champion"}
    assert promoted == {str(number) for number in range(1, 11)}
    assert len(list(shared.registry.settings.models.iterdir())) == 1


@pytest.mark.slow
def test_mlflow_prints_nothing_and_leaves_nothing_in_the_working_directory(shared: SharedRegistry) -> None:
    assert [process.stdout + process.stderr for process in shared.processes] == ["", ""]
    assert list(shared.folder.iterdir()) == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server that keeps the files itself."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "files")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            else:
                pytest.fail((folder / "log").read_text())
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.e2e
def test_a_server_serves_the_whole_way(
    server: str, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    registry = Registry.open(Settings(home=tmp_path / "home", tracking_uri=server))
    with registry.start_run("cells", "first", {"epochs": 3}) as run:
        run.log_metrics({"loss": 1.0}, 0)
        run.log_text("# Card\n", "README.md")
        first = registry.register(bundle, "cells", run_id=run.run_id, metrics={"ap50": 0.5})
    second = registry.register(bundle, "cells")
    registry.promote("cells", first.version)
    registry.promote("cells", second.version)
    assert registry.rollback("cells").reference == "cells/1"
    (model,) = registry.list()
    assert model.aliases == {"candidate": "2", "champion": "1"}
    loaded, version = load_bundle("cells", registry.settings)
    assert version is not None
    assert version.metrics == {"ap50": 0.5}
    assert loaded.digest == first.digest
    weights = hashlib.sha256((loaded.folder / "weights.safetensors").read_bytes()).digest()
    assert weights == hashlib.sha256((bundle / "weights.safetensors").read_bytes()).digest()
    assert capfd.readouterr().out == ""

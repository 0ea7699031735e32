"""The registry is away: what was known is answered, quickly, and bundles are fetched once, not by dead processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import ModelNotFoundError, PlatformError, RequestError
from cytoray_analysis.networks import build_network
from cytoray_services.environment import default_environment
from cytoray_services.free_ports import free_port
from cytoray_services.registry import Registry, load_bundle
from cytoray_services.registry.mlflow_settings import SECONDS_TO_ANSWER
from cytoray_services.settings import Settings
from registry_stores import local

pytestmark = pytest.mark.slow

NETWORK = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 3, "widths": [4, 8]})


@pytest.fixture
def registry(registry_home: Path, tmp_path: Path) -> Registry:
    registry = Registry.open(local(registry_home))
    spec = BundleSpec(name="cells", task=TaskChoice(), input=ModelInput(), network=NETWORK)
    weights = build_network(NETWORK.name, NETWORK.arguments).state_dict()
    write_bundle(tmp_path / "b", spec, weights, test_input=np.zeros((1, 16, 16), np.float32), card="# cells")
    registry.register(tmp_path / "b", "cells", alias="champion")
    return registry


def away(registry: Registry) -> Registry:
    """Return a registry as a new process would open it while MLflow is away."""
    uri = f"http://127.0.0.1:{free_port()}"
    return Registry.open(Settings(home=registry.settings.home, tracking_uri=uri))


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield int(listening.getsockname()[1])


def test_a_new_process_answers_from_what_was_known(registry: Registry) -> None:
    for reference in ("cells", "cells@champion", "cells/1", registry.resolve("cells").exact_reference):
        version, stale = registry.resolve_or_known(reference)
        assert not stale
        registry.fetch(version)
        known, stale = away(registry).resolve_or_known(reference)
        assert stale == ("#" not in reference)  # a number may have been given to another version meanwhile
        assert known == version
        assert Bundle.load(away(registry).fetch(known)).digest == version.digest


def test_a_bundle_is_opened_without_the_registry_only_where_that_is_wanted(registry: Registry) -> None:
    bundle, version = load_bundle("cells", registry.settings, known=True)
    settings = away(registry).settings
    again, known = load_bundle("cells", settings, known=True)
    assert (again.digest, known) == (bundle.digest, version)
    with pytest.raises(PlatformError, match="does not answer"):
        load_bundle("cells", settings)


def test_what_was_never_asked_is_not_made_up(registry: Registry) -> None:
    with pytest.raises(PlatformError, match="does not answer"):
        away(registry).resolve_or_known("cells")
    registry.resolve_or_known("cells@champion")
    assert away(registry).resolve_or_known("cells/1")[0].version == "1"  # which is what the alias meant
    with pytest.raises(PlatformError):
        away(registry).resolve_or_known("cells")
    with pytest.raises(RequestError, match="expected a reference"):
        away(registry).resolve_or_known("../cells")


def test_a_registry_that_says_no_is_believed(registry: Registry) -> None:
    registry.resolve_or_known("cells@champion")
    with registry._connection.client() as client:
        client.delete_registered_model_alias("cells", "champion")
    with pytest.raises(ModelNotFoundError, match="no alias 'champion'"):
        registry.resolve_or_known("cells@champion")


def test_the_newest_answer_is_the_one_that_is_known(registry: Registry, tmp_path: Path) -> None:
    registry.resolve_or_known("cells@champion")
    registry.register(tmp_path / "b", "cells", alias="champion")
    assert registry.resolve_or_known("cells@champion")[0].version == "2"
    assert away(registry).resolve_or_known("cells@champion")[0].version == "2"
    assert registry.record("cells").digests.keys() == {"1", "2"}


def test_a_file_that_no_one_understands_is_no_answer(registry: Registry) -> None:
    registry.resolve_or_known("cells")
    (registry.settings.home / "known" / "cells.json").write_text(json.dumps({"name": "cells"}))
    with pytest.raises(PlatformError):
        away(registry).resolve_or_known("cells")


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_never_answers_is_given_up_within_seconds(
    registry: Registry, silent_server: int, scheme: str
) -> None:
    if scheme == "postgresql":
        pytest.importorskip("psycopg", reason="psycopg is not installed")
    before = dict(os.environ)
    silent = Settings(home=registry.settings.home, tracking_uri=f"{scheme}://user@127.0.0.1:{silent_server}/mlflow")
    registry.resolve_or_known("cells")
    started = time.monotonic()
    assert Registry.open(silent).resolve_or_known("cells")[1]
    assert time.monotonic() - started < 12
    assert dict(os.environ) == before


def test_variables_that_threads_lend_at_the_same_time_go_with_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LENT", raising=False)
    entered, leave = threading.Event(), threading.Event()

    def lend() -> None:
        with default_environment(LENT="1"):
            entered.set()
            leave.wait(10)

    with default_environment(LENT="1"):
        thread = threading.Thread(target=lend)
        thread.start()
        assert entered.wait(10)
    assert os.environ["LENT"] == "1"
    leave.set()
    thread.join()
    assert "LENT" not in os.environ
    monkeypatch.setenv("LENT", "mine")
    with default_environment(LENT="1"):
        assert os.environ["LENT"] == "mine"
    assert os.environ["LENT"] == "mine"


FETCH = """
    import sys, time
    from pathlib import Path
    from cytoray_services.registry import Registry, fetching
    from cytoray_services.settings import Settings
    home, mark, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    real = fetching.artifact_store
    def slow_store(*where):
        store = real(*where)
        download = store.download_artifacts
        def slow(*names):
            done = download(*names)
            mark.with_name(f"{mark.name}-{time.time_ns()}").touch()
            time.sleep(seconds)
            return done
        store.download_artifacts = slow
        return store
    fetching.artifact_store = slow_store
    registry = Registry.open(Settings(home=home, tracking_uri=f"sqlite:///{home / 'mlflow.db'}"))
    print(registry.fetch(registry.resolve("cells")))
"""


def start_fetching(registry: Registry, mark: Path, seconds: float) -> subprocess.Popen[str]:
    words = [str(registry.settings.home), str(mark), str(seconds)]
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(FETCH), *words], stdout=subprocess.PIPE, text=True)


@pytest.mark.long
def test_of_many_processes_and_threads_that_fetch_at_once_one_downloads(registry: Registry, tmp_path: Path) -> None:
    version = registry.resolve("cells")
    processes = [start_fetching(registry, tmp_path / "mark", 0.5) for _ in range(3)]
    said = [process.communicate(timeout=120)[0].strip() for process in processes]
    target = registry.settings.models / version.digest
    assert said == [str(target)] * 3
    assert len(list(tmp_path.glob("mark-*"))) == 1
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: registry.fetch(version), range(8))) == {target}
    assert [path.name for path in registry.settings.models.iterdir()] == [version.digest]


def test_a_downloader_that_was_killed_leaves_nothing_that_blocks(registry: Registry, tmp_path: Path) -> None:
    killed = start_fetching(registry, tmp_path / "mark", 60)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("mark-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    version = registry.resolve("cells")
    assert not (registry.settings.models / version.digest).exists()
    killed.kill()
    killed.communicate(timeout=30)
    started = time.monotonic()
    assert Bundle.load(registry.fetch(version)).digest == version.digest
    assert time.monotonic() - started < 10
    assert [path.name for path in registry.settings.models.iterdir()] == [version.digest]


def test_short_time_limits_change_neither_the_environment_nor_another_thread(registry: Registry) -> None:
    """Faults of the past: a variable was removed while another thread read all, and limits reached its uploads."""
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT

    connection, begun, stop, seen = registry._connection, threading.Event(), threading.Event(), set[int]()

    def ask() -> None:
        while not stop.is_set():
            with connection.client(quick=True):
                seen.add(MLFLOW_HTTP_REQUEST_TIMEOUT.get())  # type: ignore[no-untyped-call]
                time.sleep(0.001)  # as for an answer: other threads go on
            begun.set()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert begun.wait(60)
        for _ in range(20_000):
            assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in dict(os.environ.items())
            limits = [one.get() for one in (MLFLOW_HTTP_REQUEST_TIMEOUT, MLFLOW_HTTP_REQUEST_MAX_RETRIES)]  # type: ignore[no-untyped-call]
            assert limits == [120, 7]
    finally:
        stop.set()
        thread.join()
    assert seen == {SECONDS_TO_ANSWER}


def test_the_limits_of_the_user_stay(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    with registry._connection.client(quick=True):
        assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 60  # type: ignore[no-untyped-call]

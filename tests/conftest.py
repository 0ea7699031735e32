"""What tests of all packages share: a Ray instance, a home folder of their own, the labelled data."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cytoray_services import settings as cytoray_settings

# The machine may be busy: a test fails by what it finds, not by how long it took.
settings.register_profile("cytoray", deadline=None)
settings.load_profile("cytoray")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
# Names of models mean what a test registers, and not what comes with the package: here and in processes of tests.
cytoray_settings.SHIPPED = REPOSITORY / "tests" / "no-shipped-models"
os.environ["CYTORAY_SHIPPED"] = str(cytoray_settings.SHIPPED)
_FOLDERS: list[Path] = []  # of the Ray instances that were shared


def pytest_configure() -> None:
    """Listen to Ctrl-C, also where a shell started the tests in the background, whose children ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep Python from searching all that tests import for garbage, during the imports and in each test afterwards."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def cytoray_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a state folder of its own, with the registry in it; the folder does not exist yet."""
    home = tmp_path / "home"
    monkeypatch.setenv("CYTORAY_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return home


@pytest.fixture(scope="session")
def registry_without_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the tables of a registry once: that takes longer than most tests."""
    from cytoray_services.registry import Registry
    from cytoray_services.settings import load_settings

    home = tmp_path_factory.mktemp("registry")
    settings = load_settings({"CYTORAY_HOME": str(home)})
    with Registry.open(settings)._connection.client(create=True):  # who only reads makes none
        assert (home / "mlflow.db").is_file()
    return home


@pytest.fixture
def registry_home(registry_without_models: Path, cytoray_home: Path) -> Path:
    """Give the test a state folder of its own, as `cytoray_home` does, with an empty registry in it."""
    return Path(shutil.copytree(registry_without_models, cytoray_home))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of labelled data sets that lies beside the checkout, or skip visibly without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("there is no ../shared/data beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Start one Ray instance for all tests of the session that ask for it.

    Four logical cores, so that two workers and what they wait for always find room.
    """
    start_ray()
    yield
    stop_ray()


@pytest.fixture(scope="module")
def away_from_ray_cluster() -> Iterator[None]:
    """Run a module while no Ray instance is shared: it uses others, or its environment must reach workers."""
    import ray

    shared = ray.is_initialized()
    if shared:
        stop_ray()
    yield
    if shared:
        start_ray()


def start_ray() -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    from cytoray_services.jobs.ray.start import known_address

    # A short name, since the path of a Unix socket may have 107 bytes and Ray's own part takes about 70.
    _FOLDERS.append(Path(tempfile.mkdtemp(prefix="cr")))
    with known_address():
        ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=2**30,
            include_dashboard=True,  # Ray Train asks it whether a training that a search stopped is gone
            log_to_driver=False,
            _temp_dir=str(_FOLDERS[-1]),
        )


def stop_ray() -> None:
    import ray

    ray.shutdown()
    for folder in _FOLDERS:
        shutil.rmtree(folder, ignore_errors=True)

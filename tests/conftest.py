"""What tests of all packages share: a Ray instance, a home folder of their own, the labelled data."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The machine may be busy: a test fails by what it finds, not by how long it took.
settings.register_profile("cytoray", deadline=None)
settings.load_profile("cytoray")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture
def cytoray_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a state folder of its own, with the registry in it; the folder does not exist yet."""
    home = tmp_path / "home"
    monkeypatch.setenv("CYTORAY_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return home


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of labelled data sets that lies beside the checkout, or skip visibly without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("there is no ../shared/data beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Start one Ray instance for all tests of the session that ask for it.

    Four logical cores, so that two workers and what they wait for always find room. The temporary folder has
    a short name, since the path of a Unix socket may have 107 bytes and Ray's own part takes about 70.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    from cytoray_training.clusters import known_address

    folder = Path(tempfile.mkdtemp(prefix="cr"))
    with known_address():
        ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=2**30,
            include_dashboard=True,  # Ray Train asks it whether a training that a search stopped is gone
            log_to_driver=False,
            _temp_dir=str(folder),
        )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)

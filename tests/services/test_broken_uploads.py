"""An upload to the registry that breaks midway leaves no version and no alias on half a model; a next try goes well."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import BundleError, ModelNotFoundError, PlatformError
from cytoray_analysis.networks import build_network
from cytoray_services.registry import KEPT, OfflineRun, Registry, load_bundle
from cytoray_services.settings import Settings
from registry_stores import local
from small_disks import enlarge, small_disk

NETWORK = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 4, "widths": [16, 32]})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    spec = BundleSpec(name="cells", task=TaskChoice(), input=ModelInput(), network=NETWORK)
    weights = build_network(NETWORK.name, NETWORK.arguments).state_dict()
    test_input = np.zeros((1, 16, 16), np.float32)
    folder = write_bundle(tmp_path / "bundle", spec, weights, test_input=test_input, card="# cells\n").folder
    assert (folder / "weights.safetensors").stat().st_size > 60_000
    return folder


class Wire(socketserver.ThreadingTCPServer):
    """What lies between MLflow's client and a store: it may be cut after some bytes of what is sent."""

    daemon_threads = True

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.upstream = upstream
        self.left: int | None = None  # bytes until it is cut; None for never
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Passing(socketserver.BaseRequestHandler):
    server: Wire

    def handle(self) -> None:
        if self.server.left is not None and self.server.left <= 0:
            return
        with socket.create_connection(self.server.upstream) as beyond:
            threading.Thread(target=_pump, args=(beyond, self.request), daemon=True).start()
            with contextlib.suppress(OSError):
                while data := self.request.recv(4096):
                    if self.server.left is not None:
                        self.server.left -= len(data)
                        if self.server.left <= 0:
                            return
                    beyond.sendall(data)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(4096):
            target.sendall(data)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """An S3 store behind a wire that can be cut."""
    moto: Any = pytest.importorskip("moto.server")
    import boto3

    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    wire = Wire(server.get_host_and_port())
    known = {
        "MLFLOW_S3_ENDPOINT_URL": wire.address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=wire.address).create_bucket(Bucket="models")
    yield wire
    wire.shutdown()
    wire.server_close()
    server.stop()


@pytest.fixture
def bucket(registry_home: Path, wire: Wire) -> Registry:
    tracking = f"sqlite:///{registry_home / 'mlflow.db'}"
    return Registry.open(Settings(home=registry_home, tracking_uri=tracking, artifacts_uri="s3://models/all"))


def has_nothing(registry: Registry) -> bool:
    with pytest.raises(ModelNotFoundError):
        registry.resolve("cells")
    return registry.list() == ()


@pytest.mark.slow
def test_a_store_that_breaks_midway_gets_no_version_and_the_next_try_goes_well(
    bucket: Registry, wire: Wire, bundle: Path
) -> None:
    wire.left = 30_000
    with pytest.raises(PlatformError, match=r"s3://models/all.*cannot be written.*no version was created"):
        bucket.register(bundle, "cells")
    wire.left = None
    assert has_nothing(bucket)
    version = bucket.register(bundle, "cells")
    assert (version.version, version.aliases) == ("1", ("candidate",))
    assert load_bundle("cells", bucket.settings)[0].digest == version.digest


@pytest.mark.slow
def test_a_training_keeps_its_model_for_later_where_the_store_breaks(
    bucket: Registry, wire: Wire, bundle: Path, tmp_path: Path
) -> None:
    run = bucket.start_run("cells", "first", keep=tmp_path / KEPT)
    wire.left = 30_000
    with pytest.raises(PlatformError):
        bucket.register(bundle, "cells", run_id=run.run_id)
    run.log_bytes(b"picture", "pictures/curves.png")
    assert isinstance(run, OfflineRun)
    assert run.kept
    wire.left = None
    assert bucket.register(bundle, "cells", run_id=run.run_id).version == "1"


@pytest.fixture
def cramped(registry_home: Path) -> Iterator[Registry]:
    """A registry whose files lie on a disk that has room for half a bundle."""
    with small_disk(registry_home / "artifacts", 64):
        yield Registry.open(local(registry_home))


def test_a_full_disk_leaves_no_version_and_no_files_and_the_next_try_goes_well(cramped: Registry, bundle: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        cramped.register(bundle, "cells")
    assert has_nothing(cramped)
    place = cramped.settings.artifacts
    assert not [path for path in place.rglob("*") if path.is_file()], "what came half is removed"
    enlarge(place, 4096)
    version = cramped.register(bundle, "cells")
    assert (version.version, version.aliases) == ("1", ("candidate",))
    assert load_bundle("cells", cramped.settings)[0].digest == version.digest


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["half", "empty", "gone", "changed"])
def test_what_a_store_did_not_keep_as_it_was_sent_becomes_no_version(
    registry_home: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    kept: Any = LocalArtifactRepository.log_artifacts

    def forgetful(self: Any, local_dir: str, artifact_path: str | None = None) -> None:
        kept(self, local_dir, artifact_path)
        spoil(Path(self.artifact_dir) / str(artifact_path), damage)

    registry = Registry.open(local(registry_home))
    with monkeypatch.context() as patched:
        patched.setattr(LocalArtifactRepository, "log_artifacts", forgetful)
        with pytest.raises(PlatformError, match=r"differ from those that were sent; no version was created"):
            registry.register(bundle, "cells")
    assert has_nothing(registry)
    assert registry.register(bundle, "cells").version == "1"


def spoil(folder: Path, damage: str) -> None:
    weights = folder / "weights.safetensors"
    content = weights.read_bytes()
    match damage:
        case "half":
            weights.write_bytes(content[: len(content) // 2])
        case "empty":
            weights.write_bytes(b"")
        case "changed":
            weights.write_bytes(content[:-8] + b"changed!")
        case _:
            weights.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["half", "empty", "gone"])
def test_a_version_on_half_a_model_is_refused_by_its_name_and_healed_by_registering_again(
    registry_home: Path, bundle: Path, tmp_path: Path, damage: str
) -> None:
    """As an earlier release may have left it, or a person who cleaned up the store."""
    registry = Registry.open(local(registry_home))
    run = registry.start_run("cells", "first")
    version = registry.register(bundle, "cells", run_id=run.run_id)
    (folder,) = [path.parent for path in registry.settings.artifacts.rglob("weights.safetensors")]
    spoil(folder, damage)
    with pytest.raises((BundleError, PlatformError), match=r"cells/1") as caught:
        load_bundle("cells", registry.settings)
    assert str(registry.settings.models) not in str(caught.value), "a draft of ours means nothing to anybody"
    assert "register its bundle again" in str(caught.value.hint)
    assert registry.register(bundle, "cells", run_id=run.run_id).version == "1"
    assert load_bundle("cells", registry.settings)[0].digest == version.digest

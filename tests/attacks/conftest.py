"""A service with tokens, as people run it, to be attacked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from servers import start_cytoray

from cytoray_services.tokens.tokens import create_token
from serving_samples import write_small_bundle


@dataclass(frozen=True)
class AttackedService:
    """A running ``cytoray serve``.

    Attributes
    ----------
    http, grpc
        Host and port.
    token
        That may predict.
    gateway
        The process that answers.
    """

    http: tuple[str, int]
    grpc: tuple[str, int]
    token: str
    gateway: psutil.Process


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttackedService]:
    """Run ``cytoray serve`` with a small model, tokens and gRPC."""
    home = tmp_path_factory.mktemp("attacked")
    bundle = write_small_bundle(home / "nuclei")
    token, _ = create_token(home / "tokens.json", "client", ("predict",), days=1)
    with start_cytoray([str(bundle), "--grpc-port", "0"], home=home, open_to_all=False) as server:
        below = server.process.children(recursive=True)
        gateway = next(one for one in below if "ServeReplica:cytoray:gateway" in " ".join(one.cmdline()))
        yield AttackedService(_door(server.url), _door(str(server.grpc)), token, gateway)


def _door(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition("//")[2].partition("/")[0].rpartition(":")
    return host, int(port)

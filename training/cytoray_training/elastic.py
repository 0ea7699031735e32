"""What Ray Train leaves to its user where nodes come and go: which network to speak over, and how long to wait."""

from __future__ import annotations

from typing import Any

_LEAST_PATIENCE = 120.0  # seconds that workers may take to start where their nodes are there


def torch_config(*, gpus: bool) -> Any:
    """Return Ray Train's ``TorchConfig``, with Gloo on the network that Ray itself uses.

    Left alone, Gloo takes the interface to which the machine's own name leads. That is the loopback device on many an
    installation, and workers of different nodes do not find each other.
    """
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _TorchBackend

    class Backend(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(use_network_of_ray)
            super().on_start(worker_group, backend_config)

    class Config(TorchConfig):
        @property
        def backend_cls(self) -> Any:
            return Backend

    return Config(backend="nccl" if gpus else "gloo")


def use_network_of_ray() -> None:
    """Name the interface with this node's address to Gloo, unless somebody has chosen one. Runs in a worker."""
    import os

    import psutil
    import ray

    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    for interface, addresses in psutil.net_if_addrs().items():
        if address in [one.address for one in addresses]:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def patience(seconds: float) -> Any:
    """Return a callback of Ray Train's controller that ends a training whose workers have waited too long for nodes."""
    import time

    from ray.train.v2._internal.execution.callback import ControllerCallback
    from ray.train.v2._internal.execution.controller.state import RunningState

    limit = max(seconds, _LEAST_PATIENCE)

    class Patience(ControllerCallback):
        def __init__(self) -> None:
            self.since: float | None = None

        def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
            if isinstance(current_state, RunningState) or current_state.is_terminal():
                self.since = None
                return
            self.since = self.since or time.monotonic()
            if time.monotonic() - self.since > limit:
                raise TimeoutError(f"the cluster did not give the workers their nodes within {limit / 60:g} minutes")
            if type(previous_state) is type(current_state):
                time.sleep(0.5)  # the controller itself would ask as often as it can

    return Patience()

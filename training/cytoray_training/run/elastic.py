"""Settings of Ray Train for clusters whose nodes come and go: the network interface, and the maximum wait."""

from __future__ import annotations

from typing import Any

_LEAST_PATIENCE = 120.0  # seconds that workers may take to start on existing nodes


def torch_config(*, gpus: bool) -> Any:
    """Return Ray Train's ``TorchConfig``, with Gloo on the network that Ray itself uses.

    By default Gloo uses the interface of the machine's own name. On many installations that is the loopback device, so
    workers of different nodes cannot connect.
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
    """Configure Gloo with the interface of this node's address, unless one is set. Runs in a worker."""
    import os

    import psutil
    import ray

    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    for interface, addresses in psutil.net_if_addrs().items():
        if address in [one.address for one in addresses]:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def patience(seconds: float) -> Any:
    """Return a callback of Ray Train's controller that ends a training run whose workers wait too long for nodes."""
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
                raise TimeoutError(
                    f"expected nodes for the workers within {limit / 60:g} minutes, the cluster provided none"
                )
            if type(previous_state) is type(current_state):
                time.sleep(0.5)  # the controller itself would poll without pause

    return Patience()

"""The Ray cluster of a training run: a temporary one on this machine, or an existing one."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from cytoray_analysis.errors import RequestError
from cytoray_services.jobs.ray.own import passing_folder
from cytoray_services.jobs.ray.start import connect_ray, start_ray
from cytoray_services.jobs.scale import Scale

LOCAL, AUTO = "local", "auto"
_OBJECT_STORE = 2**28
_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_BETWEEN_WORDS = 60.0


@contextlib.contextmanager
def cluster(scale: Scale, on: str, *, runs: int = 1, reclaiming: bool = False) -> Iterator[None]:
    """Connect to a Ray cluster: a local one that ends with this context, or the one at an address.

    Inside another such context, as for each of several training runs, use the outer cluster.

    Parameters
    ----------
    scale
        Scale of one training run. A local cluster that is too small for the minimum number of workers is refused;
        another cluster may still add nodes, so this waits.
    on
        ``local``, ``auto`` for the cluster whose node this process runs on, or ``host:port``.
    runs
        Number of concurrent training runs that a local cluster must have room for.
    reclaiming
        Whether training runs are ended from outside, as a search does. Ray Train then releases their reservations after
        it asks the dashboard whether they have ended, so a local cluster needs a dashboard.

    Raises
    ------
    PlatformError, RequestError
        The address has no cluster, or it is still too small after ``scale.wait_minutes``.
    """
    import ray

    if ray.is_initialized():  # connected by the caller, as for a search
        if on == LOCAL:
            _require(scale)
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    with contextlib.ExitStack() as ending:
        if on == LOCAL:
            # A SIGTERM to all processes of a job is handled here: its workers must save a checkpoint first.
            start_ray(
                ending.enter_context(passing_folder()),
                shielded=True,
                known=True,
                num_cpus=max(os.cpu_count() or 1, runs * scale.workers * scale.cpus_per_worker),
                include_dashboard=reclaiming,
                object_store_memory=_OBJECT_STORE,
                **quiet,
            )
        else:
            _connect(on, quiet)
        ending.callback(ray.shutdown)
        if on == LOCAL:
            _require(scale)
        else:
            _await_nodes(scale, on)
        # Ray reports lost nodes on standard output, which is reserved for the result.
        ending.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def _connect(on: str, quiet: dict[str, Any]) -> None:
    if "://" in on:
        raise RequestError(
            f"expected local, auto or host:port of a Ray cluster, got {on!r}: a training run starts inside its own "
            "cluster",
            field="--on",
            hint=f"use cytoray jobs train RECIPE --on {on}",
        )
    connect_ray(on, hint="use --on local, or the right address", **quiet)


def bundle(scale: Scale) -> dict[str, float]:
    """Return the resources that one worker requests."""
    wanted = {"CPU": scale.cpus_per_worker, "GPU": scale.gpus_per_worker}
    return {kind: float(amount) for kind, amount in wanted.items() if amount}


def _require(scale: Scale) -> None:
    """Refuse a scale that the cluster can never provide, instead of waiting forever."""
    if _room(bundle(scale)) < scale.least_workers:
        raise _too_small(scale)


def _await_nodes(scale: Scale, on: str) -> None:
    """Wait until the minimum number of workers has room, and request it from an autoscaling cluster."""
    import ray
    from ray.util import placement_group, remove_placement_group

    least, wanted = scale.least_workers, bundle(scale)
    most = ray._private.state.state.get_max_resources_from_cluster_config()  # None: no autoscaler
    if most is not None and any(most.get(kind, 0) < least * amount for kind, amount in wanted.items()):
        raise _too_small(scale, "and cannot grow further")
    began, reported, before = time.monotonic(), -_SECONDS_BETWEEN_WORDS, -1
    group = placement_group([wanted] * least)
    try:
        while not group.wait(_SECONDS_BETWEEN_LOOKS):
            waited = time.monotonic() - began
            room = _room(wanted)
            if waited > 60 * scale.wait_minutes:
                raise _too_small(scale, f"after {scale.wait_minutes:g} minutes")
            if room != before or waited - reported >= _SECONDS_BETWEEN_WORDS:
                reported, before = waited, room
                busy = ", all in use" if room >= least else ""
                print(
                    f"waiting for nodes: {on} has room for {room} of {least} workers{busy} ({waited / 60:.0f} of "
                    f"{scale.wait_minutes:g} minutes)",
                    file=sys.stderr,
                    flush=True,
                )
    finally:
        remove_placement_group(group)


def _room(wanted: dict[str, float]) -> int:
    """Return how many workers would fit on the running nodes if nothing else ran on them."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return sum(int(min(node.get(kind, 0) // amount for kind, amount in wanted.items())) for node in nodes)


def _too_small(scale: Scale, when: str = "") -> RequestError:
    wanted = bundle(scale)
    room, without_gpus = _room(wanted), _room({"CPU": scale.cpus_per_worker})
    least = scale.least_workers
    each = " and ".join(f"{amount:g} {kind}{'s' if amount > 1 else ''}" for kind, amount in wanted.items())
    missing = "scale.gpus_per_worker" if scale.gpus_per_worker and without_gpus >= least else "scale.workers"
    said = f"the cluster has room for {room}{f' {when}' if when else ''}"
    if room >= least:
        said = f"all of it is in use{f' {when}' if when else ''}"
    return RequestError(
        f"expected room for {least} workers with {each} each, {said}",
        field=missing,
        hint="use fewer workers, set scale.min_workers, or use a larger cluster",
    )

"""The only door to Ray Train: workers, their replacement when they die, and a progress bar in the driver."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import CytorayError, PlatformError, RequestError, TrainingError
from cytoray_analysis.files import write_whole
from cytoray_services.jobs.scale import Scale
from cytoray_training.checkpoint import Checkpoint, Journal, load_checkpoint, load_journal, save_checkpoint
from cytoray_training.plan import Plan
from cytoray_training.reporter import PROGRESS, append_progress

FAILURE = "failure.json"
START = "start"  # a checkpoint that a run goes on from before it has one of its own
LOCAL = "local"
_SNAPSHOT = "checkpoint_manager_snapshot.json"
_OBJECT_STORE = 2**28
Listener = Callable[[Mapping[str, Any]], None]


def launch(plan: Plan, folder: Path, *, on: str = LOCAL, listen: Listener | None = None) -> Checkpoint:
    """Train on a Ray cluster, going on from the newest checkpoint in `folder`, and return the last one.

    Parameters
    ----------
    plan
        What to train on what, and on how many workers.
    folder
        Of this run; on storage that all nodes share where there are several.
    on
        ``local`` starts a cluster of this machine for the time being; else the address of one.
    listen
        Called with each line of the progress file.

    Raises
    ------
    TrainingError
        The training diverged, or workers were lost more often than ``scale.max_failures``.
    PlatformError
        There is no Ray cluster at the address, or it is too small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finished = newest_checkpoint(folder)
    if finished is not None and finished.journal.finished:
        return finished
    (folder / FAILURE).unlink(missing_ok=True)
    with cluster(plan.recipe.scale, on), _listening(folder / PROGRESS, listen):
        _fit(plan, folder)
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise TrainingError(f"the training ended without a checkpoint in {folder}")
    return checkpoint


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint of a run's folder, without starting Ray."""
    place = newest_place(folder)
    return load_checkpoint(place) if place else None


def newest_journal(folder: Path) -> Journal | None:
    """Return where a run stands by its newest complete checkpoint, without reading weights."""
    place = newest_place(folder)
    return load_journal(place) if place else None


def newest_place(folder: Path) -> Path | None:
    """Return the folder of a run's newest complete checkpoint; None before the first."""
    if not (folder / _SNAPSHOT).is_file():
        return None
    from ray.train import Result

    logging.getLogger("ray.train").setLevel(logging.WARNING)  # it explains at length that there are checkpoints
    checkpoint = Result.from_path(str(folder)).checkpoint
    return None if checkpoint is None else Path(checkpoint.path)


@dataclass(frozen=True)
class _RayReporter:
    """Hands checkpoints to Ray Train, which keeps the newest two and restores the last."""

    folder: Path

    def latest(self) -> Checkpoint | None:
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            start = self.folder / START
            return load_checkpoint(start) if start.is_dir() else None
        with checkpoint.as_directory() as place:
            return load_checkpoint(Path(place))

    def report(self, metrics: Mapping[str, float], checkpoint: Checkpoint | None) -> None:
        import ray.train

        if checkpoint is None:
            ray.train.report(dict(metrics))
            return
        with tempfile.TemporaryDirectory(prefix="cytoray-checkpoint-") as draft:
            place = Path(draft) / "checkpoint"
            save_checkpoint(place, checkpoint)
            name = f"checkpoint-{checkpoint.journal.step:09d}"
            ray.train.report(
                dict(metrics), checkpoint=ray.train.Checkpoint.from_directory(str(place)), checkpoint_dir_name=name
            )

    def progress(self, facts: Mapping[str, Any]) -> None:
        append_progress(self.folder / PROGRESS, facts)


def _work(config: dict[str, Any]) -> None:
    """Run in each worker."""
    import ray
    import ray.train.torch
    import torch

    from cytoray_training.loop import train

    plan, folder = ray.get(config["plan"]), config["folder"]
    if (folder / FAILURE).exists():
        return  # this worker was started in place of one that failed for a reason that a new start does not mend
    torch.set_num_threads(plan.recipe.scale.cpus_per_worker)
    try:
        train(plan, _RayReporter(folder), device=ray.train.torch.get_device())
    except CytorayError as error:
        write_whole(folder / FAILURE, json.dumps({"kind": type(error).__name__, **error.describe()}))
        raise


def _fit(plan: Plan, folder: Path) -> None:
    import ray
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    # How often the controller looks at its workers; a worker with a second report waits until it took the first.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    scale = plan.recipe.scale
    trainer = TorchTrainer(
        _work,
        # By reference: the controller, which reads this too, would import torch to understand a plan.
        train_loop_config={"plan": ray.put(plan), "folder": folder},
        torch_config=TorchConfig(backend="nccl" if scale.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=scale.workers,
            use_gpu=scale.gpus_per_worker > 0,
            resources_per_worker={"CPU": scale.cpus_per_worker, "GPU": scale.gpus_per_worker},
        ),
        run_config=RunConfig(  # type: ignore[call-arg] # Ray's annotations show the class before V2
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=FailureConfig(max_failures=scale.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        _raise_failure(folder)
        reason = str(error).strip().splitlines()
        raise TrainingError(
            f"the training stopped: {reason[-1] if reason else type(error).__name__}",
            hint="run the same command again to go on from the last checkpoint",
        ) from error
    _raise_failure(folder)


def _raise_failure(folder: Path) -> None:
    """Raise in the driver what a worker raised."""
    if not (folder / FAILURE).is_file():
        return
    from cytoray_analysis import errors

    failure = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
    kind = getattr(errors, failure["kind"], TrainingError)
    raise kind(failure["message"], field=failure.get("field"), hint=failure.get("hint"))


@contextlib.contextmanager
def cluster(scale: Scale, on: str, *, trainings: int = 1, reclaiming: bool = False) -> Iterator[None]:
    """Be connected to a Ray cluster: a local one that ends with this context, or the one at an address.

    Inside another such context, as each of several trainings is, it is the outer one.

    Parameters
    ----------
    scale
        Of one training; a cluster that can never give it is refused.
    on
        ``local`` or an address.
    trainings
        How many such trainings a local cluster offers room for at a time.
    reclaiming
        Whether trainings are ended from outside, as a search does. What they had reserved is given back by Ray Train,
        which asks the dashboard whether they are gone: a local cluster needs one then.

    Raises
    ------
    PlatformError, RequestError
        There is no cluster at the address, or it is too small.
    """
    import ray

    if ray.is_initialized():  # by the caller, as a search does
        _require(scale.workers, scale.cpus_per_worker, scale.gpus_per_worker)
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if on == LOCAL:
        with known_address():
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, trainings * scale.workers * scale.cpus_per_worker),
                include_dashboard=reclaiming,
                object_store_memory=_OBJECT_STORE,
                **quiet,
            )
    else:
        try:
            ray.init(address=on, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise PlatformError(
                f"no Ray cluster answers at {on!r}: {error}", field="--on", hint="use --on local, or the right address"
            ) from error
    try:
        _require(scale.workers, scale.cpus_per_worker, scale.gpus_per_worker)
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def known_address() -> Iterator[None]:
    """Let the processes of a cluster that starts inside this context know its address.

    What Ray Train leaves to watch over a training looks for the cluster by itself otherwise, and gives up where there
    is a second one on the machine, such as a service.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"127.0.0.1:{port}"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _require(workers: int, cpus: int, gpus: int) -> None:
    """Refuse a scale that the cluster can never give, instead of waiting for it for ever."""
    import ray

    have = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for kind, wanted, field in (
        ("GPU", workers * gpus, "scale.gpus_per_worker"),
        ("CPU", workers * cpus, "scale.workers"),
    ):
        if wanted > have.get(kind, 0):
            raise RequestError(
                f"expected at most {have.get(kind, 0):.0f} {kind}s, got {wanted} ({workers} workers)",
                field=field,
                hint="use fewer workers, or a larger cluster",
            )


@contextlib.contextmanager
def _listening(path: Path, listen: Listener | None) -> Iterator[None]:
    """Pass each new line of the progress file on, from a thread."""
    if listen is None:
        yield
        return
    stop = threading.Event()
    start = path.stat().st_size if path.exists() else 0
    thread = threading.Thread(target=_follow, args=(path, start, listen, stop), daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(path: Path, start: int, listen: Listener, stop: threading.Event) -> None:
    ended = False
    while not ended:
        ended = stop.wait(0.25)  # one more look after the end
        if not path.exists():
            continue
        with path.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                start += len(line)
                listen(json.loads(line))
    sys.stderr.flush()

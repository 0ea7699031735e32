"""The only door to Ray Train: workers, their replacement when they die, and a progress bar in the driver."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import CytorayError, PlatformError, TrainingError, UntrainableError
from cytoray_analysis.files import write_whole
from cytoray_services.records import reading
from cytoray_services.stopping import StoppedError
from cytoray_training.checkpoint import Checkpoint, Journal, load_checkpoint, load_journal, save_checkpoint
from cytoray_training.clusters import LOCAL, bundle, cluster
from cytoray_training.elastic import patience, torch_config
from cytoray_training.plan import Plan
from cytoray_training.reporter import PROGRESS, append_progress
from cytoray_training.stopping import AGAIN, StopFile, saved_when_stopped

FAILURE = "failure.json"
START = "start"  # a checkpoint that a run goes on from before it has one of its own
RESIZE_SECONDS = 60.0  # how often a training with fewer workers than it may have looks for more nodes
_SNAPSHOT = "checkpoint_manager_snapshot.json"
_MARK = "mark"  # tells a folder that all nodes share from one that is only called the same
_SECONDS_TO_SEE_IT = 15.0
# What PyTorch raises as a RuntimeError when another worker, the network or the accelerator is gone.
_OF_MACHINES = re.compile(r"gloo|nccl|connection (closed|reset|refused)|CUDA error", re.IGNORECASE)
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
        Where; see :func:`cytoray_training.clusters.cluster`.
    listen
        Called with each line of the progress file.

    Raises
    ------
    UntrainableError
        The training diverged, needs more memory than there is, or fails of itself again and again.
    TrainingError
        Workers were lost more than ``scale.max_failures`` times without a checkpoint between.
    PlatformError
        There is no Ray cluster at the address, it is too small, or its nodes do not share the folder.
    StoppedError
        A signal asked this process to end; the workers have saved where they were, if they were so far.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finished = newest_checkpoint(folder)
    if finished is not None and finished.journal.finished:
        return finished
    (folder / FAILURE).unlink(missing_ok=True)
    from cytoray_training.progress_metrics import progress_metrics  # which knows what a listener is from here

    stages: set[str] = set()
    with cluster(plan.recipe.scale, on), progress_metrics(plan, folder.name) as gauges:
        listeners = [lambda facts: stages.add(facts["stage"]), gauges, *([listen] if listen else [])]
        with (
            _listening(folder / PROGRESS, listeners),
            saved_when_stopped(folder, may_save=lambda: "workers" in stages),
        ):
            _fit(plan, folder)
    if StopFile(folder)():  # of the study that this is a part of
        raise StoppedError(signal.SIGTERM, hint=AGAIN)
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
    stopping: StopFile

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


def _work(config: dict[str, Any]) -> list[str]:
    """Run in each worker; return the addresses of nodes that do not share the folder, having done nothing else."""
    import ray
    import ray.train.torch
    import torch

    from cytoray_training.loop import train

    plan, folder = ray.get(config["plan"]), config["folder"]
    if blind := _blind_nodes(folder, config["mark"]):
        return blind
    if (folder / FAILURE).exists():
        return []  # this worker was started in place of one that failed for a reason that a new start does not remove
    torch.set_num_threads(plan.recipe.scale.cpus_per_worker)
    try:
        train(plan, _RayReporter(folder, StopFile(folder)), device=ray.train.torch.get_device())
    except CytorayError as error:
        _note_failure(folder, error)
        raise
    except torch.OutOfMemoryError as error:
        message = str(error).partition(". ")[0]
        hint = "raise training.accumulate, or training.zero_stage to 2 or 3: the same training goes on with less memory"
        _note_failure(folder, UntrainableError(message, field="training.batch_size", hint=hint))
        raise
    return []


def _note_failure(folder: Path, error: CytorayError) -> None:
    write_whole(folder / FAILURE, json.dumps({"kind": type(error).__name__, **error.describe()}))


def _blind_nodes(folder: Path, mark: str) -> list[str]:
    """Return the addresses of the nodes whose workers do not find the mark in the folder. All workers call it."""
    import ray
    from torch import distributed

    end = time.monotonic() + _SECONDS_TO_SEE_IT  # a network's file system may take a while to show a new file
    path = folder / _MARK
    while not (seen := path.is_file() and path.read_text() == mark) and time.monotonic() < end:
        time.sleep(0.5)
    mine = "" if seen else ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if not distributed.is_initialized():
        return [mine] if mine else []
    everyone = [""] * distributed.get_world_size()
    distributed.all_gather_object(everyone, mine)
    return sorted({address for address in everyone if address})


def _fit(plan: Plan, folder: Path) -> None:
    """Train, as often as it takes: workers may be lost again and again where each time there is a checkpoint more."""
    from ray.train.v2.api.exceptions import TrainingFailedError

    scale = plan.recipe.scale
    while True:
        before = newest_place(folder)
        try:
            blind = _trainer(plan, folder).fit().return_value
        except TrainingFailedError as error:
            _raise_failure(folder)
            if scale.max_failures and newest_place(folder) != before:
                continue
            reason = str(error).strip().splitlines()
            message = f"the training stopped: {reason[-1] if reason else type(error).__name__}"
            if _is_of_recipe(error):
                raise UntrainableError(message, hint="it failed alike each time; change the recipe") from error
            raise TrainingError(message, hint="run the same command again to go on from the last checkpoint") from error
        break
    _raise_failure(folder)
    if blind:
        raise PlatformError(
            f"expected a folder that all nodes share, got one that {', '.join(blind)} cannot see: {folder}",
            field="CYTORAY_HOME",
            hint="let CYTORAY_HOME name storage that is mounted on every node, such as a ReadWriteMany volume",
        )


def _is_of_recipe(error: Exception) -> bool:
    """Whether it was the training itself that failed in a worker, again and again, and nothing that it runs on."""
    from safetensors import SafetensorError
    from torch import distributed

    failures = list(getattr(error, "worker_failures", {}).values())
    raised = [getattr(failure, "_base_exc", None) for failure in failures]  # None: the worker itself was lost
    platform = OSError, SafetensorError, distributed.DistError
    lost = (one is None or isinstance(one, platform) or _OF_MACHINES.search(str(one)) for one in raised)
    return bool(raised) and not any(lost)


def _trainer(plan: Plan, folder: Path) -> Any:
    import ray
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    # How often the controller looks at its workers; a worker with a second report waits until it took the first.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    scale = plan.recipe.scale
    if scale.elastic:
        # The controller counts nodes that have just been lost for up to 20 seconds more; it is to try again soon.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15")
    mark = uuid.uuid4().hex
    write_whole(folder / _MARK, mark)

    class Trainer(TorchTrainer):
        """Leaves Ctrl-C to :func:`saved_when_stopped`."""

        def _register_sigint_handler(self, controller: Any) -> None:
            pass

    return Trainer(
        _work,  # type: ignore[arg-type] # it may return something since V2
        # By reference: the controller, which reads this too, would import torch to understand a plan.
        train_loop_config={"plan": ray.put(plan), "folder": folder, "mark": mark},
        torch_config=torch_config(gpus=scale.gpus_per_worker > 0),
        scaling_config=ScalingConfig(  # type: ignore[call-arg] # as below
            num_workers=(scale.least_workers, scale.workers) if scale.elastic else scale.workers,  # type: ignore[arg-type]
            use_gpu=scale.gpus_per_worker > 0,
            resources_per_worker=bundle(scale),
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=RunConfig(  # type: ignore[call-arg] # Ray's annotations show the class before V2
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=FailureConfig(max_failures=scale.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            logging_config=LoggingConfig(log_level="ERROR"),
            callbacks=[patience(60 * scale.wait_minutes)],
        ),
    )


def _raise_failure(folder: Path) -> None:
    """Raise in the driver what a worker raised."""
    if not (folder / FAILURE).is_file():
        return
    from cytoray_analysis import errors

    with reading(folder / FAILURE, "why a worker failed", hint="run the same command again"):
        failure = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
        kind, message = getattr(errors, failure["kind"], TrainingError), failure["message"]
    raise kind(message, field=failure.get("field"), hint=failure.get("hint"))


@contextlib.contextmanager
def _listening(path: Path, listeners: Sequence[Listener]) -> Iterator[None]:
    """Pass each new line of the progress file on, from a thread."""
    stop = threading.Event()
    start = path.stat().st_size if path.exists() else 0
    thread = threading.Thread(target=_follow, args=(path, start, listeners, stop), daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(path: Path, start: int, listeners: Sequence[Listener], stop: threading.Event) -> None:
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
                for listen in listeners:
                    listen(json.loads(line))
    sys.stderr.flush()

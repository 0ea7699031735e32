"""The only module that uses Ray Train: workers, their replacement, and a progress bar in the driver."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import CytorayError, PlatformError, TrainingError, UntrainableError
from cytoray_analysis.files import write_whole
from cytoray_services.environment import default_environment
from cytoray_services.jobs.scale import Scale
from cytoray_services.records import reading
from cytoray_services.stopping import StoppedError
from cytoray_training.plan.plan import Plan
from cytoray_training.run.checkpoint import (
    Checkpoint,
    checkpoint_name,
    checkpoints,
    load_checkpoint,
    newest_whole,
    save_checkpoint,
)
from cytoray_training.run.clusters import LOCAL, bundle, cluster
from cytoray_training.run.elastic import patience, torch_config
from cytoray_training.run.kept_checkpoints import kept_checkpoints, newest_checkpoint, prepare_resume
from cytoray_training.run.progress_metrics import progress_metrics
from cytoray_training.run.reporter import PROGRESS, Listener, append_progress
from cytoray_training.run.stopping import AGAIN, StopFile, saved_when_stopped

FAILURE = "failure.json"
START = "start"  # a checkpoint that a run starts from before it has its own
RESIZE_SECONDS = 60.0  # seconds between checks for more nodes, with fewer workers than the maximum
_MARK = "mark"  # distinguishes a shared folder from a local one with the same path
_SECONDS_TO_SEE_IT = 15.0
# RuntimeErrors of PyTorch after the loss of another worker, the network or the accelerator.
_OF_MACHINES = re.compile(r"gloo|nccl|connection (closed|reset|refused)|CUDA error", re.IGNORECASE)


def launch(plan: Plan, folder: Path, *, on: str = LOCAL, listen: Listener | None = None) -> Checkpoint:
    """Train on a Ray cluster, continuing from the newest checkpoint in `folder`, and return the last one.

    Parameters
    ----------
    plan
        Recipe, data and number of workers.
    folder
        Folder of this run; with several nodes, on storage that all of them share.
    on
        The cluster; see :func:`cytoray_training.run.clusters.cluster`.
    listen
        Called with each line of the progress file.

    Raises
    ------
    UntrainableError
        The training run diverged, needs more memory than available, or failed repeatedly for its own reasons.
    TrainingError
        Workers were lost more than ``scale.max_failures`` times without a new checkpoint, or all checkpoints are
        damaged. If only some are damaged, the newest intact one is used, with a warning in the progress file.
    PlatformError
        The address has no Ray cluster, it is too small, or its nodes do not share the folder.
    StoppedError
        This process received a termination signal; the workers have saved their state, if they had any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finished = newest_checkpoint(folder)
    if finished is not None and finished.progress.finished:
        return finished
    (folder / FAILURE).unlink(missing_ok=True)

    stages: set[str] = set()
    with cluster(plan.recipe.scale, on), progress_metrics(plan, folder.name) as gauges:
        listeners = [lambda facts: stages.add(facts["stage"]), gauges, *([listen] if listen else [])]
        with (
            # Around the listeners: a variable that is removed while another thread reads the environment is an error.
            default_environment(**_ray_train_variables(plan.recipe.scale)),
            _listening(folder / PROGRESS, listeners),
            saved_when_stopped(folder, may_save=lambda: "workers" in stages),
        ):
            _fit(plan, folder)
    if StopFile(folder)():  # of the parent study
        raise StoppedError(signal.SIGTERM, hint=AGAIN)
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise TrainingError(f"expected a checkpoint in {folder} at the end of the training run, found none")
    return checkpoint


@dataclass(frozen=True)
class _RayReporter:
    """Passes checkpoints to Ray Train, which keeps the newest two.

    `newest` is the name of the checkpoint to continue from if Ray has none.
    """

    folder: Path
    stopping: StopFile
    newest: str | None

    def latest(self) -> Checkpoint | None:
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        newest = self.newest if checkpoint is None else Path(checkpoint.path).name
        if newest is None:
            start = self.folder / START
            return load_checkpoint(start) if start.is_dir() else None
        # Ignore newer ones, so that all workers start with the same although a lost one may still be writing.
        return newest_whole([path for path in checkpoints(self.folder) if path.name <= newest], self._warn)

    def _warn(self, text: str) -> None:
        import ray.train

        if ray.train.get_context().get_world_rank() == 0:
            self.progress({"stage": "warning", "text": text})

    def report(self, metrics: Mapping[str, float], checkpoint: Checkpoint | None) -> None:
        import ray.train

        if checkpoint is None:
            ray.train.report(dict(metrics))
            return
        with tempfile.TemporaryDirectory(prefix="cytoray-checkpoint-") as draft:
            place = Path(draft) / "checkpoint"
            save_checkpoint(place, checkpoint, durable=False)
            ray.train.report(
                dict(metrics),
                checkpoint=ray.train.Checkpoint.from_directory(str(place)),
                checkpoint_dir_name=checkpoint_name(checkpoint.progress.step),
            )

    def progress(self, facts: Mapping[str, Any]) -> None:
        append_progress(self.folder / PROGRESS, facts)


def _work(config: dict[str, Any]) -> list[str]:
    """Run in each worker; if nodes do not share the folder, only return their addresses."""
    import ray
    import ray.train.torch
    import torch

    from cytoray_training.run.loop import train

    plan, folder = ray.get(config["plan"]), config["folder"]
    if blind := _blind_nodes(folder, config["mark"]):
        return blind
    if (folder / FAILURE).exists():
        return []  # this worker replaces one that failed for a reason that a restart does not remove
    torch.set_num_threads(plan.recipe.scale.cpus_per_worker)
    try:
        train(plan, _RayReporter(folder, StopFile(folder), config["newest"]), device=ray.train.torch.get_device())
    except CytorayError as error:
        _note_failure(folder, error)
        raise
    except torch.OutOfMemoryError as error:
        message = str(error).partition(". ")[0]
        hint = "increase training.accumulate, or set training.zero_stage to 2 or 3: this needs less memory"
        _note_failure(folder, UntrainableError(message, field="training.batch_size", hint=hint))
        raise
    return []


def _note_failure(folder: Path, error: CytorayError) -> None:
    write_whole(folder / FAILURE, json.dumps({"kind": type(error).__name__, **error.describe()}))


def _blind_nodes(folder: Path, mark: str) -> list[str]:
    """Return the addresses of nodes whose workers do not find the marker in the folder. All workers must call it."""
    import ray
    from torch import distributed

    end = time.monotonic() + _SECONDS_TO_SEE_IT  # a network file system may show a new file with delay
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
    """Train with restarts: workers may be lost any number of times if each restart adds a checkpoint."""
    from ray.train.v2.api.exceptions import TrainingFailedError

    scale = plan.recipe.scale
    while True:
        newest = prepare_resume(
            folder, lambda text: append_progress(folder / PROGRESS, {"stage": "warning", "text": text})
        )
        before = kept_checkpoints(folder)[:1]
        try:
            blind = _trainer(plan, folder, newest).fit().return_value
        except TrainingFailedError as error:
            _raise_failure(folder)
            if scale.max_failures and kept_checkpoints(folder)[:1] != before:
                continue
            reason = str(error).strip().splitlines()
            message = f"the training run failed: {reason[-1] if reason else type(error).__name__}"
            if _is_of_recipe(error):
                raise UntrainableError(
                    message, hint="it failed in the same way each time; change the recipe"
                ) from error
            raise TrainingError(
                message, hint="run the same command again to continue from the last checkpoint"
            ) from error
        break
    _raise_failure(folder)
    if blind:
        raise PlatformError(
            f"expected a folder that all nodes share, got {folder}, which is missing on {', '.join(blind)}",
            field="CYTORAY_HOME",
            hint="set CYTORAY_HOME to storage that is mounted on every node, such as a ReadWriteMany volume",
        )


def _is_of_recipe(error: Exception) -> bool:
    """Whether the training code itself failed repeatedly in a worker, not the machine or the network."""
    from safetensors import SafetensorError
    from torch import distributed

    failures = list(getattr(error, "worker_failures", {}).values())
    raised = [getattr(failure, "_base_exc", None) for failure in failures]  # None: the worker itself was lost
    platform = OSError, SafetensorError, distributed.DistError
    lost = (one is None or isinstance(one, platform) or _OF_MACHINES.search(str(one)) for one in raised)
    return bool(raised) and not any(lost)


def _ray_train_variables(scale: Scale) -> dict[str, str]:
    """Return the settings of Ray Train's controller that have no argument."""
    import ray

    # How often it polls its workers; a worker's second report waits until the first is processed.
    variables = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25"}
    if scale.elastic:
        # It counts lost nodes for up to 20 seconds; it must retry soon.
        variables["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "15"
    if sum(node["Alive"] for node in ray.nodes()) == 1:  # type: ignore[no-untyped-call]
        # If the only node is removed, no process remains that could react to the notice.
        variables["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    return variables


def _trainer(plan: Plan, folder: Path, newest: str | None) -> Any:
    import ray
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks import DatasetsCallback

    scale = plan.recipe.scale
    mark = uuid.uuid4().hex
    write_whole(folder / _MARK, mark)

    class Trainer(TorchTrainer):
        """Leaves Ctrl-C to :func:`saved_when_stopped`; starts no process for Ray data sets, which are not used."""

        def _register_sigint_handler(self, controller: Any) -> None:
            pass

        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()  # type: ignore[misc] # TorchTrainer since V2
            return [one for one in callbacks if not isinstance(one, DatasetsCallback)]

    return Trainer(
        _work,  # type: ignore[arg-type] # it may return something since V2
        # By reference: the controller also reads this and would import torch to unpickle a plan.
        train_loop_config={"plan": ray.put(plan), "folder": folder, "mark": mark, "newest": newest},
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
    """Pass on each new line of the progress file, from a thread."""
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
        ended = stop.wait(0.25)  # one more check after the end
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

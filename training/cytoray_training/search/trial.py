"""One trial, in its own process of Ray Tune. It waits for the workers, and imports little to start quickly."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import InputError, UntrainableError
from cytoray_analysis.tasks.metrics import metric_named
from cytoray_services.stopping import StoppedError
from cytoray_training.engines.schedule import progress_of
from cytoray_training.plan.plan import Plan
from cytoray_training.run.checkpoint import TrainingProgress
from cytoray_training.run.clusters import AUTO
from cytoray_training.run.kept_checkpoints import newest_progress
from cytoray_training.run.launch import launch

KEPT = "kept"
SAVED = "saved"  # left by a trial that saved its state on request
_PATIENCE = 120.0  # maximum seconds between an epoch's line and its checkpoint


def train_trial(config: Mapping[str, Any], *, plan: Plan, folder: str, metric: str, keep: int) -> None:
    """Train one trial, continue it after an interruption, and report every validation to Ray Tune.

    An error of its recipe is reported as its failure. Other errors, such as a full disk or lost workers, do not count
    against it: they are reported and raised, so that Tune retries the trial.

    Parameters
    ----------
    config
        ``name`` of the trial and ``values``, the changes to its recipe.
    plan
        Of the unchanged recipe.
    folder
        Of the study.
    metric
        The score that chooses.
    keep
        Interval in epochs of checkpoints that other trials may start from; 0: none.
    """
    from ray import tune

    place = Path(folder) / config["name"]
    goodness = metric_named(metric).goodness
    reported = 0

    def tell(reached: TrainingProgress | None) -> None:
        nonlocal reported
        for entry in reached.history if reached else ():
            epoch = int(entry["epoch"]) + 1
            if epoch > reported and _has(entry, metric):
                reported = epoch
                training = changed.recipe.training
                progress = progress_of(epoch, training.epochs, entry["elapsed"], training.minutes)
                scores = {**entry, "epoch": epoch, "progress": progress}
                # As text, because Tune flattens nested results.
                tune.report({"progress": progress, "score": goodness(entry[metric]), "scores": json.dumps(scores)})

    def listen(facts: Mapping[str, Any]) -> None:
        if facts["stage"] == "epoch" and _has(facts, metric):
            epoch = int(facts["epoch"]) + 1
            reached = _covering(place, epoch)
            if keep and epoch % keep == 0:
                _keep(place, epoch, epoch * plan.recipe.training.steps_per_epoch)
            tell(reached)

    (place / SAVED).unlink(missing_ok=True)
    try:
        changed = plan.changed(config["values"])
        tell(newest_progress(place))
        tell(launch(changed, place, on=AUTO, listen=listen).progress)  # this process is on a node of the cluster
    except (InputError, UntrainableError) as error:
        tune.report({"score": 0.0, "failed": error.message})
        return
    except StoppedError:
        (place / SAVED).touch()
        time.sleep(_PATIENCE)  # the search ends this process; a trial that returns would count as completed
        return
    except Exception as error:
        tune.report({"score": 0.0, "fault": str(error) or type(error).__name__})
        raise
    tune.report({"score": 0.0, "finished": True})


def _has(facts: Mapping[str, Any], metric: str) -> bool:
    """Whether the validation had a score."""
    return not math.isnan(facts.get(metric, math.nan))


def _covering(place: Path, epoch: int) -> TrainingProgress | None:
    """Wait for the checkpoint of an epoch that was just reported, so that a trial stopped now can continue later."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        reached = newest_progress(place)
        if reached is not None and reached.epoch >= epoch:
            return reached
        time.sleep(0.2)
    return None


def _keep(place: Path, epoch: int, step: int) -> None:
    """Keep the checkpoint of an epoch, if it still exists: the training run keeps its newest two."""
    source, target = place / f"checkpoint-{step:09d}", place / KEPT / str(epoch)
    if source.is_dir() and not target.exists():
        draft = target.with_name(f".{epoch}.{os.getpid()}")
        copy_links(source, draft)
        draft.replace(target)


def copy_links(source: Path, target: Path) -> None:
    """Copy a folder of immutable files by hard links."""
    shutil.copytree(source, target, copy_function=os.link)

"""One trial, in the process that Ray Tune gives it. It waits for the workers, and imports little to start quickly."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import InputError, UntrainableError
from cytoray_analysis.tasks.metrics import metric_named
from cytoray_services.stopping import StoppedError
from cytoray_training.checkpoint import Journal
from cytoray_training.clusters import AUTO
from cytoray_training.launch import launch, newest_journal
from cytoray_training.plan import Plan
from cytoray_training.recipe import changed_recipe
from cytoray_training.schedule import progress_of

KEPT = "kept"
SAVED = "saved"  # what a trial leaves that was asked to save where it is
_PATIENCE = 120.0  # seconds between an epoch's line and its checkpoint, before the line is left to the next one


def train_trial(config: Mapping[str, Any], *, plan: Plan, folder: str, metric: str, keep: int) -> None:
    """Train one trial, going on with it where it was interrupted, and tell Ray Tune of every validation.

    What its recipe does wrong is reported as its failure. Anything else that goes wrong, such as a full disk or lost
    workers, is no verdict on it: that is reported, and raised, so that Tune tries the trial again.

    Parameters
    ----------
    config
        ``name`` of the trial and ``values``, how its recipe differs.
    plan
        Of the recipe as it is.
    folder
        Of the study.
    metric
        The score that chooses.
    keep
        Keep a checkpoint every so many epochs for others to start from; 0: none.
    """
    from ray import tune

    place = Path(folder) / config["name"]
    goodness = metric_named(metric).goodness
    told = 0

    def tell(journal: Journal | None) -> None:
        nonlocal told
        for entry in journal.history if journal else ():
            epoch = int(entry["epoch"]) + 1
            if epoch > told and _has(entry, metric):
                told = epoch
                training = changed.recipe.training
                progress = progress_of(epoch, training.epochs, entry["elapsed"], training.minutes)
                scores = {**entry, "epoch": epoch, "progress": progress}
                # As text, since Tune takes nested results apart.
                tune.report({"progress": progress, "score": goodness(entry[metric]), "scores": json.dumps(scores)})

    def listen(facts: Mapping[str, Any]) -> None:
        if facts["stage"] == "epoch" and _has(facts, metric):
            epoch = int(facts["epoch"]) + 1
            journal = _covering(place, epoch)
            if keep and epoch % keep == 0:
                _keep(place, epoch, epoch * plan.recipe.training.steps_per_epoch)
            tell(journal)

    (place / SAVED).unlink(missing_ok=True)
    try:
        changed = replace(plan, recipe=changed_recipe(plan.recipe, config["values"]))
        tell(newest_journal(place))
        tell(launch(changed, place, on=AUTO, listen=listen).journal)  # this process is on a node of the cluster
    except (InputError, UntrainableError) as error:
        tune.report({"score": 0.0, "failed": error.message})
        return
    except StoppedError:
        (place / SAVED).touch()
        time.sleep(_PATIENCE)  # the search ends this process; a trial that ended by itself would count as completed
        return
    except Exception as error:
        tune.report({"score": 0.0, "fault": str(error) or type(error).__name__})
        raise
    tune.report({"score": 0.0, "finished": True})


def _has(facts: Mapping[str, Any], metric: str) -> bool:
    """Whether there was something to score."""
    return not math.isnan(facts.get(metric, math.nan))


def _covering(place: Path, epoch: int) -> Journal | None:
    """Wait for the checkpoint of an epoch that was just told of: a trial stopped by it can be gone on with."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        journal = newest_journal(place)
        if journal is not None and journal.epoch >= epoch:
            return journal
        time.sleep(0.2)
    return None


def _keep(place: Path, epoch: int, step: int) -> None:
    """Keep the checkpoint of an epoch, if it is still there: the training keeps its newest two."""
    source, target = place / f"checkpoint-{step:09d}", place / KEPT / str(epoch)
    if source.is_dir() and not target.exists():
        draft = target.with_name(f".{epoch}.{os.getpid()}")
        copy_links(source, draft)
        draft.replace(target)


def copy_links(source: Path, target: Path) -> None:
    """Copy a folder of files that never change, without their bytes."""
    shutil.copytree(source, target, copy_function=os.link)

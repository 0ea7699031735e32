"""Several training runs as child runs of one MLflow run, in one folder; they continue after an interruption.

The only record of a training run is one JSON file, which is written atomically. A study that was killed reads these
files, does not repeat completed, stopped or failed runs, and continues the others from their newest checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cytoray_analysis.errors import InputError, PlatformError, TrainingError, UntrainableError
from cytoray_analysis.files import write_whole
from cytoray_analysis.tasks.metrics import metric_named
from cytoray_services.records import reading
from cytoray_services.registry import Registry, Run
from cytoray_services.settings import Settings
from cytoray_training.diagnosis.diagnose import diagnosed_on_failure
from cytoray_training.plan.plan import Plan
from cytoray_training.publish.publish import publish
from cytoray_training.run.checkpoint import Checkpoint
from cytoray_training.run.kept_checkpoints import newest_progress
from cytoray_training.run.launch import launch
from cytoray_training.run.progress_bar import ProgressBar, listener
from cytoray_training.run.runs import TrainingRun, claim_folder, start_run
from cytoray_training.run.similar import RunSettings
from cytoray_training.search.cost import Cost

State = Literal["running", "completed", "stopped", "failed"]
_SPENT = "spent.json"
_PARENT = "mlflow.parentRunId"
_SECONDS_BETWEEN_TRIES = 5.0


@dataclass(frozen=True)
class Member:
    """The record of one training run of a study.

    Attributes
    ----------
    name
        Name of its folder and its record.
    values
        Changes to the study's recipe: value by dotted path.
    state
        ``running``, also if it was interrupted; ``completed``, ``stopped`` early, or ``failed``.
    run_id
        Of its MLflow run.
    scores
        One mapping per validation: the task's scores, ``epoch``, the number of epochs trained, and of a trial
        ``progress``, the completed share of its schedule.
    reason
        Why it stopped or failed.
    facts
        Further data that the study needs.
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    state: State = "running"
    run_id: str | None = None
    scores: tuple[dict[str, float], ...] = ()
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Trained epochs up to the last validation."""
        return int(self.scores[-1]["epoch"]) if self.scores else 0

    @property
    def cost(self) -> tuple[int, float] | None:
        """Trained epochs and their seconds; None if unknown."""
        if "epochs" in self.facts and "seconds" in self.facts:
            return int(self.facts["epochs"]), float(self.facts["seconds"])
        last = self.scores[-1] if self.scores else {}
        return (self.epochs, float(last["elapsed"])) if "elapsed" in last else None

    def best(self, metric: str) -> float | None:
        """Return its best score, the lowest if less is better; None before the first validation."""
        known = [one[metric] for one in self.scores if not math.isnan(one.get(metric, math.nan))]
        return max(known, key=metric_named(metric).goodness, default=None)

    def goodness(self, metric: str) -> float:
        """Return its best score, transformed so that more is better; -inf before the first validation."""
        best = self.best(metric)
        return -math.inf if best is None else metric_named(metric).goodness(best)

    def at(self, metric: str, epoch: int) -> float | None:
        """Return its score, transformed so that more is better, at the first validation after `epochs`, if any."""
        score = next((one[metric] for one in self.scores if one["epoch"] >= epoch), None)
        return None if score is None else metric_named(metric).goodness(score)

    def after(self, metric: str, share: float) -> float | None:
        """Return its score, transformed so that more is better, after a share of its schedule; None if not reached.

        Trials with schedules of different length are validated at different positions. Between two validations the
        score is interpolated linearly; before the first it is the first score.
        """
        goodness = metric_named(metric).goodness
        known = [(one["progress"], goodness(one[metric])) for one in self.scores if "progress" in one]
        if not known or known[-1][0] < share:
            return None
        places, scores = zip(*known, strict=True)
        return float(np.interp(share, places, scores))


class Study:
    """A folder of training runs and their parent MLflow run.

    Parameters
    ----------
    training
        The folder, held by this process.
    run
        The parent.
    registry
        Stores runs and models.
    cost
        The expected cost of its training runs; None without a report.
    """

    def __init__(self, training: TrainingRun, run: Run, registry: Registry, cost: Cost | None = None) -> None:
        self.folder, self.run, self.registry = training.folder, run, registry
        self._records = self.folder / "members"
        self._records.mkdir(exist_ok=True)
        self._cost = cost
        self._began = time.monotonic()
        spent = self.folder / _SPENT
        with reading(spent, "the duration of a study", hint="remove it; the duration then starts from 0"):
            self._spent_before = float(json.loads(spent.read_text(encoding="utf-8"))) if spent.is_file() else 0.0
        if cost is not None:
            self._say(cost.before(*self._known_costs()))

    @property
    def members(self) -> list[Member]:
        """All training runs so far, by name."""
        return [_member(path) for path in sorted(self._records.glob("*.json"))]

    def member(self, name: str) -> Member | None:
        """Return the record of one training run."""
        path = self._records / f"{name}.json"
        return _member(path) if path.is_file() else None

    def note(self, member: Member) -> Member:
        """Write the record of a training run, and the time spent so far."""
        write_whole(self._records / f"{member.name}.json", json.dumps(asdict(member)))
        write_whole(self.folder / _SPENT, json.dumps(self.spent))
        return member

    @property
    def spent(self) -> float:
        """Seconds spent on this study, including before interruptions."""
        return self._spent_before + time.monotonic() - self._began

    def tell_cost(self) -> None:
        """Print the remaining cost after a training run."""
        if self._cost is not None and not self._cost.is_over((known := self._known_costs())[0]):
            self._say(self._cost.after(*known))

    def _known_costs(self) -> tuple[int, float, list[tuple[int, float]]]:
        ended = [member for member in self.members if member.state != "running"]
        return len(ended), self.spent, [member.cost for member in ended if member.cost is not None]

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        self.run.set_tags({"cost": line})

    def begin(self, member: Member, plan: Plan) -> tuple[Member, Run]:
        """Start or continue the child run of a training run."""
        tags = {_PARENT: self.run.run_id, "member": member.name, "state": member.state}
        run = start_run(self.registry, plan, f"{self.folder.name}/{member.name}", member.run_id, tags)
        return self.note(replace(member, run_id=run.run_id)), run

    def train(
        self,
        name: str,
        plan: Plan,
        *,
        on: str,
        values: Mapping[str, Any] | None = None,
        register: Mapping[str, Any] | None = None,
    ) -> Member:
        """Train to the end, bundle and score; the result of a completed training run is only read.

        Parameters
        ----------
        name
            Of the training run within this study.
        plan
            Recipe and data.
        on
            See :func:`cytoray_training.run.launch.launch`.
        values
            Changes to its recipe.
        register
            Facts for the registration of the model; None: write the bundle, do not register it.

        Returns
        -------
        Member
            With ``facts``: ``bundle``, ``metrics``, and ``version`` if it was registered.

        Raises
        ------
        UntrainableError
            The recipe is the cause of the failure.
        TrainingError, PlatformError
            Another failure occurred repeatedly; the training run stays open.
        """
        member = self.member(name) or Member(name, dict(values or {}))
        if member.state == "completed" and ("version" in member.facts or register is None) and "bundle" in member.facts:
            return member
        member, run = self.begin(member, plan)
        folder = self.folder / name
        before, began = newest_progress(folder), time.monotonic()
        with run, diagnosed_on_failure(folder, run), ProgressBar(plan.recipe.training.epochs, plan.metric) as bar:
            bar.say(name)
            checkpoint = _persistently(name, plan, lambda: launch(plan, folder, on=on, listen=listener(run, bar)))
            published = publish(plan, checkpoint, folder, run, None if register is None else self.registry, register)
            facts: dict[str, Any] = {
                "bundle": str(published.bundle.folder),
                "metrics": published.evaluation.metrics,
                **({"version": published.version.version} if published.version else {}),
            }
            if member.state == "running":
                seconds = (before.elapsed if before else 0.0) + time.monotonic() - began
                facts |= {"epochs": checkpoint.progress.epoch, "seconds": round(seconds, 1)}
            run.set_tags({"state": "completed"})
        member = self.note(replace(member, state="completed", reason="", facts=member.facts | facts))
        self.tell_cost()
        return member


def _persistently(name: str, plan: Plan, train: Callable[[], Checkpoint]) -> Checkpoint:
    """Train, and retry up to ``scale.max_failures`` times unless the recipe is the cause."""
    left = plan.recipe.scale.max_failures
    while True:
        try:
            return train()
        except (InputError, UntrainableError):
            raise
        except (PlatformError, OSError) as error:
            reason = str(error) or type(error).__name__
            if not left:
                hint = "correct this and run the same command again to continue; it does not count against the recipe"
                hint = f"{error.hint}; {hint}" if isinstance(error, PlatformError) and error.hint else hint
                raise TrainingError(f"{name} failed: {reason}", hint=hint) from error
        left -= 1
        print(f"{name} failed: {reason}; retrying", file=sys.stderr, flush=True)
        time.sleep(_SECONDS_BETWEEN_TRIES)


@contextmanager
def open_study(
    kind: str,
    plan: Plan,
    settings: Settings,
    *,
    wanted: Mapping[str, Any],
    cost: Cost | None = None,
    fresh: bool = False,
) -> Iterator[Study]:
    """Lock the study to run: the unfinished one with the same settings, or a new one.

    Parameters
    ----------
    kind
        Kind of study: ``search``, ``folds``, ``curve``.
    plan
        Of the unchanged recipe.
    settings
        Contains the state folder and the registry.
    wanted
        Further settings that identify the study.
    cost
        The expected cost of its training runs, printed at the start and after each run.
    fresh
        Start from the beginning in any case.

    Raises
    ------
    TrainingError
        Another process is running it.
    """
    question = json.dumps([plan.identity, wanted], sort_keys=True, default=str)
    identity = hashlib.sha256(question.encode()).hexdigest()
    asked = {"search": {"tune": wanted}, "curve": wanted}.get(kind, {})  # the settings of folds are in the recipe
    known = RunSettings.of(plan, asked)
    registry = Registry.open(settings)
    studies, name = settings.home / "studies", f"{kind}-{plan.recipe.model.name}"
    with claim_folder(studies, name, identity, plan, known, fresh=fresh) as training:
        run = start_run(registry, plan, training.folder.name, training.run_id, {"kind": kind, **training.tags})
        with run:
            training = training.noting(run_id=run.run_id)
            yield Study(training, run, registry, cost)
            training.noting(finished=True)


def _member(path: Path) -> Member:
    with reading(path, "the record of a training run of a study", hint="remove it; that training run is then repeated"):
        content = json.loads(path.read_text(encoding="utf-8"))
        return Member(**content | {"scores": tuple(content["scores"])})

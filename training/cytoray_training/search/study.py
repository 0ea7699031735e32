"""Several trainings as child runs of one MLflow run, in one folder: interrupted, they go on where they were.

What is known of a training is one JSON file, written atomically when it changes, and nothing else: a study that is
killed at any moment reads the files, leaves alone what was completed, stopped or failed, and goes on with the rest from
its newest checkpoint.
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
from cytoray_training.checkpoint import Checkpoint
from cytoray_training.diagnosis.diagnose import diagnosed_on_failure
from cytoray_training.launch import launch, newest_journal
from cytoray_training.plan import Plan
from cytoray_training.progress_bar import ProgressBar
from cytoray_training.publish import bundled, code_version
from cytoray_training.recipe import recipe_hash
from cytoray_training.runs import TrainingRun, claim_folder
from cytoray_training.search.cost import Cost
from cytoray_training.similar import RunSettings
from cytoray_training.train import listener

State = Literal["running", "completed", "stopped", "failed"]
_SPENT = "spent.json"
_PARENT = "mlflow.parentRunId"
_SECONDS_BETWEEN_TRIES = 5.0


@dataclass(frozen=True)
class Member:
    """What is known of one training of a study.

    Attributes
    ----------
    name
        Of its folder and its record.
    values
        How its recipe differs from the study's: value by dotted path.
    state
        ``running`` also when it was interrupted; ``completed``, ``stopped`` early, or ``failed``.
    run_id
        Of its MLflow run.
    scores
        One mapping per validation: the task's scores, ``epoch``, the number of epochs trained, and of a trial
        ``progress``, which share of its schedule that is.
    reason
        Why it was stopped or failed.
    facts
        What else the study must remember of it.
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
        """Epochs trained, as far as they were validated."""
        return int(self.scores[-1]["epoch"]) if self.scores else 0

    @property
    def cost(self) -> tuple[int, float] | None:
        """Epochs that it was trained and the seconds that they took; None where that is not known."""
        if "epochs" in self.facts and "seconds" in self.facts:
            return int(self.facts["epochs"]), float(self.facts["seconds"])
        last = self.scores[-1] if self.scores else {}
        return (self.epochs, float(last["elapsed"])) if "elapsed" in last else None

    def best(self, metric: str) -> float | None:
        """Return its best score, which is the least where less is better; None before the first validation."""
        known = [one[metric] for one in self.scores if not math.isnan(one.get(metric, math.nan))]
        return max(known, key=metric_named(metric).goodness, default=None)

    def goodness(self, metric: str) -> float:
        """Return its best score, turned so that more is better; -inf before the first validation."""
        best = self.best(metric)
        return -math.inf if best is None else metric_named(metric).goodness(best)

    def at(self, metric: str, epoch: int) -> float | None:
        """Return its score, turned so that more is better, at the first validation after so many epochs, if any."""
        score = next((one[metric] for one in self.scores if one["epoch"] >= epoch), None)
        return None if score is None else metric_named(metric).goodness(score)

    def after(self, metric: str, share: float) -> float | None:
        """Return its score, turned so that more is better, after a share of its schedule; None if it never came to it.

        Trials whose schedules differ in length are validated at different places of them. Between two validations the
        score is taken to be linear; before the first it is that of the first.
        """
        goodness = metric_named(metric).goodness
        known = [(one["progress"], goodness(one[metric])) for one in self.scores if "progress" in one]
        if not known or known[-1][0] < share:
            return None
        places, scores = zip(*known, strict=True)
        return float(np.interp(share, places, scores))


class Study:
    """A folder of trainings and the MLflow run that is their parent.

    Parameters
    ----------
    training
        The folder, held by this process.
    run
        The parent.
    registry
        Where runs and models are kept.
    cost
        What its training runs will cost; None where it is not asked for.
    """

    def __init__(self, training: TrainingRun, run: Run, registry: Registry, cost: Cost | None = None) -> None:
        self.folder, self.run, self.registry = training.folder, run, registry
        self._records = self.folder / "members"
        self._records.mkdir(exist_ok=True)
        self._cost = cost
        self._began = time.monotonic()
        spent = self.folder / _SPENT
        with reading(spent, "the seconds that a study took", hint="remove it; they are then counted from 0"):
            self._spent_before = float(json.loads(spent.read_text(encoding="utf-8"))) if spent.is_file() else 0.0
        if cost is not None:
            self._say(cost.before(*self._known_costs()))

    @property
    def members(self) -> list[Member]:
        """All trainings so far, by name."""
        return [_member(path) for path in sorted(self._records.glob("*.json"))]

    def member(self, name: str) -> Member | None:
        """Return what is known of one training."""
        path = self._records / f"{name}.json"
        return _member(path) if path.is_file() else None

    def note(self, member: Member) -> Member:
        """Write down what is known of a training, and the time spent so far."""
        write_whole(self._records / f"{member.name}.json", json.dumps(asdict(member)))
        write_whole(self.folder / _SPENT, json.dumps(self.spent))
        return member

    @property
    def spent(self) -> float:
        """Seconds that this study took, earlier spells included."""
        return self._spent_before + time.monotonic() - self._began

    def tell_cost(self) -> None:
        """Say what is left to come, after a training has ended."""
        if self._cost is not None and not self._cost.is_over((known := self._known_costs())[0]):
            self._say(self._cost.after(*known))

    def _known_costs(self) -> tuple[int, float, list[tuple[int, float]]]:
        ended = [member for member in self.members if member.state != "running"]
        return len(ended), self.spent, [member.cost for member in ended if member.cost is not None]

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        self.run.set_tags({"cost": line})

    def begin(self, member: Member, plan: Plan) -> tuple[Member, Run]:
        """Start the child run of a training, or go on with it."""
        run = self.registry.start_run(
            experiment=plan.recipe.model.name,
            name=f"{self.folder.name}/{member.name}",
            params=plan.recipe.model_dump(mode="json", exclude={"tune": True}),
            tags={
                _PARENT: self.run.run_id,
                "member": member.name,
                "recipe": recipe_hash(plan.recipe),
                "data": plan.dataset_hash,
                "code": code_version(),
                "state": member.state,
            },
            run_id=member.run_id,
        )
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
        """Train to the end, bundle and score; a training that was completed before is only looked up.

        Parameters
        ----------
        name
            Of the training within this study.
        plan
            What to train on what.
        on
            See :func:`cytoray_training.launch.launch`.
        values
            How its recipe differs.
        register
            Facts to register the model with; None keeps the bundle without registering it.

        Returns
        -------
        Member
            With ``facts``: ``bundle``, ``metrics``, and ``version`` where it was registered.

        Raises
        ------
        UntrainableError
            The recipe is why it could not go on.
        TrainingError, PlatformError
            Something else is, again and again; the training stays open.
        """
        member = self.member(name) or Member(name, dict(values or {}))
        if member.state == "completed" and ("version" in member.facts or register is None) and "bundle" in member.facts:
            return member
        member, run = self.begin(member, plan)
        folder = self.folder / name
        before, began = newest_journal(folder), time.monotonic()
        with run, diagnosed_on_failure(folder, run), ProgressBar(plan.recipe.training.epochs) as bar:
            bar.say(name)
            checkpoint = _persistently(name, plan, lambda: launch(plan, folder, on=on, listen=listener(run, bar)))
            bundle, evaluation = bundled(plan, checkpoint, folder, run)
            facts: dict[str, Any] = {"bundle": str(bundle.folder), "metrics": evaluation.metrics}
            if member.state == "running":
                seconds = (before.elapsed if before else 0.0) + time.monotonic() - began
                facts |= {"epochs": checkpoint.journal.epoch, "seconds": round(seconds, 1)}
            if register is not None:
                version = self.registry.register(
                    bundle.folder, plan.recipe.model.name, run_id=run.run_id, metrics=evaluation.metrics, tags=register
                )
                facts["version"] = version.version
            run.set_tags({"state": "completed"})
        member = self.note(replace(member, state="completed", reason="", facts=member.facts | facts))
        self.tell_cost()
        return member


def _persistently(name: str, plan: Plan, train: Callable[[], Checkpoint]) -> Checkpoint:
    """Train, and try again as often as lost workers are replaced, where not the recipe is why it could not go on."""
    left = plan.recipe.scale.max_failures
    while True:
        try:
            return train()
        except (InputError, UntrainableError):
            raise
        except (PlatformError, OSError) as error:
            reason = str(error) or type(error).__name__
            if not left:
                hint = "correct this and run the same command again to go on with it: that is no verdict on its recipe"
                hint = f"{error.hint}; {hint}" if isinstance(error, PlatformError) and error.hint else hint
                raise TrainingError(f"{name} could not go on: {reason}", hint=hint) from error
        left -= 1
        print(f"{name} could not go on: {reason}; it is tried again", file=sys.stderr, flush=True)
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
    """Hold the study to go on with: the unfinished one of this question, or a new one.

    Parameters
    ----------
    kind
        What is asked: ``search``, ``folds``, ``curve``.
    plan
        Of the recipe as it is.
    settings
        Names the state folder and the registry.
    wanted
        What else tells one question from another.
    cost
        What its training runs will cost, which is said before any begins and whenever one has ended.
    fresh
        Begin anew in any case.

    Raises
    ------
    TrainingError
        Another process is at it.
    """
    question = json.dumps([plan.identity, wanted], sort_keys=True, default=str)
    identity = hashlib.sha256(question.encode()).hexdigest()
    asked = {"search": {"tune": wanted}, "curve": wanted}.get(kind, {})  # what is asked of folds stands in the recipe
    known = RunSettings.of(plan, asked)
    registry = Registry.open(settings)
    studies, name = settings.home / "studies", f"{kind}-{plan.recipe.model.name}"
    with claim_folder(studies, name, identity, plan, known, fresh=fresh) as training:
        run = registry.start_run(
            experiment=plan.recipe.model.name,
            name=training.folder.name,
            params=plan.recipe.model_dump(mode="json", exclude={"tune": True}),
            tags={
                "kind": kind,
                "recipe": recipe_hash(plan.recipe),
                "data": plan.dataset_hash,
                "code": code_version(),
                **training.tags,
            },
            run_id=training.run_id,
        )
        with run:
            training = training.noting(run_id=run.run_id)
            yield Study(training, run, registry, cost)
            training.noting(finished=True)


def _member(path: Path) -> Member:
    with reading(path, "the record of a training of a study", hint="remove it; that training is then run again"):
        content = json.loads(path.read_text(encoding="utf-8"))
        return Member(**content | {"scores": tuple(content["scores"])})

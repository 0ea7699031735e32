"""Several trainings as child runs of one MLflow run, in one folder: interrupted, they go on where they were.

What is known of a training is one JSON file, written atomically when it changes, and nothing else: a study that is
killed at any moment reads the files, leaves alone what was completed, stopped or failed, and goes on with the rest from
its newest checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cytoray_analysis.files import write_whole
from cytoray_services.registry import Registry, Run
from cytoray_services.settings import Settings
from cytoray_training.diagnosis.diagnose import diagnosed_on_failure
from cytoray_training.launch import launch
from cytoray_training.plan import Plan
from cytoray_training.progress_bar import ProgressBar
from cytoray_training.publish import bundled, code_version
from cytoray_training.recipe import recipe_hash
from cytoray_training.runs import TrainingRun, claim_folder
from cytoray_training.train import listener

State = Literal["running", "completed", "stopped", "failed"]
_SPENT = "spent.json"
_PARENT = "mlflow.parentRunId"


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
        One mapping per validation: the task's scores and ``epoch``, the number of epochs trained.
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

    def best(self, metric: str) -> float | None:
        """Return its highest score; None before the first validation."""
        return max((one[metric] for one in self.scores if metric in one), default=None)

    def at(self, metric: str, epoch: int) -> float | None:
        """Return its score at the first validation after so many epochs; None if it never came to it."""
        return next((one[metric] for one in self.scores if one["epoch"] >= epoch), None)


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
    """

    def __init__(self, training: TrainingRun, run: Run, registry: Registry) -> None:
        self.folder, self.run, self.registry = training.folder, run, registry
        self._records = self.folder / "members"
        self._records.mkdir(exist_ok=True)
        self._began = time.monotonic()
        spent = self.folder / _SPENT
        self._spent_before = float(json.loads(spent.read_text(encoding="utf-8"))) if spent.is_file() else 0.0

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
        TrainingError, PlatformError
            See :func:`cytoray_training.launch.launch`.
        """
        member = self.member(name) or Member(name, dict(values or {}))
        if member.state == "completed" and ("version" in member.facts or register is None) and "bundle" in member.facts:
            return member
        member, run = self.begin(member, plan)
        folder = self.folder / name
        with run, diagnosed_on_failure(folder, run), ProgressBar(plan.recipe.training.epochs) as bar:
            bar.say(name)
            checkpoint = launch(plan, folder, on=on, listen=listener(run, bar))
            bundle, metrics = bundled(plan, checkpoint, folder, run)
            facts: dict[str, Any] = {"bundle": str(bundle.folder), "metrics": metrics}
            if register is not None:
                version = self.registry.register(
                    bundle.folder, plan.recipe.model.name, run_id=run.run_id, metrics=metrics, tags=register
                )
                facts["version"] = version.version
            run.set_tags({"state": "completed"})
        return self.note(replace(member, state="completed", facts=member.facts | facts))


@contextmanager
def open_study(
    kind: str, plan: Plan, settings: Settings, *, wanted: Mapping[str, Any], fresh: bool = False
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
    fresh
        Begin anew in any case.

    Raises
    ------
    TrainingError
        Another process is at it.
    """
    question = json.dumps([plan.identity, wanted], sort_keys=True, default=str)
    stem = f"{kind}-{plan.recipe.model.name}-{hashlib.sha256(question.encode()).hexdigest()[:12]}"
    registry = Registry.open(settings)
    with claim_folder(settings.home / "studies", stem, fresh=fresh) as training:
        run = registry.start_run(
            experiment=plan.recipe.model.name,
            name=training.folder.name,
            params=plan.recipe.model_dump(mode="json", exclude={"tune": True}),
            tags={"kind": kind, "recipe": recipe_hash(plan.recipe), "data": plan.dataset_hash, "code": code_version()},
            run_id=training.run_id,
        )
        with run:
            training = training.noting(run_id=run.run_id)
            yield Study(training, run, registry)
            training.noting(finished=True)


def _member(path: Path) -> Member:
    content = json.loads(path.read_text(encoding="utf-8"))
    return Member(**content | {"scores": tuple(content["scores"])})

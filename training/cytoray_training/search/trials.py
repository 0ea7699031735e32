"""The trials of a search: which recipe is next, the state of each, and the best. Does not use Ray."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cytoray_analysis.errors import BundleError, RecipeError
from cytoray_analysis.plural import counted
from cytoray_analysis.tasks.metrics import metric_named
from cytoray_services.registry import Run
from cytoray_training.plan.dimensions import require_fitting
from cytoray_training.plan.plan import Plan
from cytoray_training.recipe import Tune
from cytoray_training.run.launch import START
from cytoray_training.search import population
from cytoray_training.search.sampler import Tried, suggest
from cytoray_training.search.space import Space, place_of
from cytoray_training.search.study import Member, State, Study
from cytoray_training.search.trial import KEPT, copy_links

_DRAWS = 50  # of a valid recipe


class Trials:
    """All trials of one search.

    Parameters
    ----------
    study
        Records the trials.
    plan
        Of the unchanged recipe.
    tune
        The recipe's section.
    space
        What is varied.
    metric
        The score that chooses.
    """

    def __init__(self, study: Study, plan: Plan, tune: Tune, space: Space, metric: str) -> None:
        self.study, self.plan, self.tune, self.space, self.metric = study, plan, tune, space, metric
        self.left_open: tuple[str, str] | None = None  # a trial that failed for another reason than its recipe, and why
        self._runs: dict[str, Run] = {}
        self._faults: dict[str, str] = {}

    @property
    def members(self) -> list[Member]:
        """All trials so far, in their order."""
        return [member for member in self.study.members if member.name.startswith("trial-")]

    @property
    def at_work(self) -> list[str]:
        """Names of the trials that this process started and that have not ended."""
        return list(self._runs)

    @property
    def seconds_left(self) -> float | None:
        """The remaining budget in hours; None without a budget."""
        return None if self.tune.hours is None else max(0.0, self.tune.hours * 3600 - self.study.spent)

    @property
    def exhausted(self) -> bool:
        """Whether no further trial will start."""
        members = self.members
        if any(member.state == "running" for member in members):
            return False
        enough = self.tune.trials is not None and len(members) >= self.tune.trials
        return enough or self.seconds_left == 0.0 or (bool(members) and not self._can_go_on(members))

    def next(self) -> Member | None:
        """Start the next trial: an interrupted one, else a new one; None if none can start now.

        Also None after a failure that is not due to the recipe: it would probably affect all other trials.
        """
        if self.left_open is not None:
            return None
        members = self.members
        for member in members:
            if member.state == "running" and member.name not in self._runs:
                return self._begin(member)
        if self.seconds_left == 0.0 or (self.tune.trials is not None and len(members) >= self.tune.trials):
            return None
        name = f"trial-{len(members) + 1:03d}"
        if not members:
            return self._begin(Member(name))  # the unchanged recipe, for comparison with the best
        if self.tune.searcher == "population" and len(members) >= self.tune.population.size:
            successor = self._successor(members)
            return None if successor is None else self._begin(self._descending(name, *successor))
        return self._begin(Member(name, self._suggested(members)))

    def plan_for(self, values: Mapping[str, Any]) -> Plan:
        """Return the plan of a trial.

        Raises
        ------
        RecipeError, BundleError
            The values are not a valid recipe.
        """
        plan = self.plan.changed(values)
        require_fitting(plan)
        return plan

    def report(self, name: str, scores: Mapping[str, float]) -> Member:
        """Record a validation; a known one changes nothing."""
        member = self._known(name)
        if scores["epoch"] <= member.epochs:
            return member
        leader = max(self.members, key=lambda one: one.goodness(self.metric)).best(self.metric)
        before = "" if leader is None else f"  best {leader:.3f}"
        member = self.study.note(replace(member, scores=(*member.scores, dict(scores))))
        self._runs[name].log_metrics({k: v for k, v in scores.items() if k != "epoch"}, step=int(scores["epoch"]))
        epochs = self.plan.recipe.training.epochs
        _say(f"{name}  epoch {member.epochs}/{epochs}  {self.metric} {scores[self.metric]:.3f}{before}")
        return member

    def end(self, name: str, state: State, reason: str = "") -> None:
        """Record how a trial ended: ``completed``, ``stopped`` or ``failed``; the first record counts."""
        member = self._known(name)
        if member.state != "running":
            return
        _say(f"{name}  {state} after {counted(member.epochs, 'epoch')}{f': {reason}' if reason else ''}")
        run = self._runs.pop(name, None) or self.study.begin(member, self.plan_for(member.values))[1]
        run.set_tags({"state": state, **({"reason": reason} if reason else {})})
        run.end("FAILED" if state == "failed" else "FINISHED")
        self.study.note(replace(member, run_id=run.run_id, state=state, reason=reason))
        self.study.tell_cost()

    def note_fault(self, name: str, reason: str) -> None:
        """Report a failure that does not count against the recipe: the trial is retried."""
        self._faults[name] = reason
        _say(f"{name}  failed: {reason}; retrying")

    def leave_open(self, name: str) -> None:
        """Leave a trial open that failed repeatedly; the next start of the search continues it."""
        member, run = self._known(name), self._runs.pop(name, None)
        if member.state != "running" or run is None:  # the first record counts: Tune reports some errors twice
            return
        reason = self._faults.get(name, "its process ended repeatedly")
        self.left_open = name, reason
        _say(f"{name}  stays open after {counted(member.epochs, 'epoch')}: {reason}")
        run.set_tags({"reason": reason})
        run.end("KILLED")
        self.study.note(replace(member, reason=reason))

    def best(self) -> Member | None:
        """Return the best completed trial; if there is none, the best of all."""
        scored = [member for member in self.members if member.best(self.metric) is not None]
        completed = [member for member in scored if member.state == "completed"]
        return max(completed or scored, key=lambda member: member.goodness(self.metric), default=None)

    def tried(self) -> list[Tried]:
        """Return the input of a sampler: the trials in the space."""
        states = {"failed": "stopped"}
        found = []
        for member in self.members:
            places = place_of(self.space, self.plan.recipe, member.values)
            if places is not None:
                goodness = metric_named(self.metric).goodness
                known = [one for one in member.scores if "progress" in one]
                steps = {round(100 * one["progress"]): goodness(one[self.metric]) for one in known}
                found.append(Tried(places, steps, states.get(member.state, member.state)))
        return found

    def _known(self, name: str) -> Member:
        member = self.study.member(name)
        if member is None:
            raise KeyError(name)
        return member

    def _begin(self, member: Member) -> Member:
        member, self._runs[member.name] = self.study.begin(member, self.plan_for(member.values))
        changes = "  ".join(f"{path}={_short(value)}" for path, value in member.values.items())
        _say(f"{member.name}  {changes or 'the unchanged recipe'}")
        return member

    def _suggested(self, members: list[Member]) -> dict[str, Any]:
        searcher = "random" if self.tune.searcher == "population" else self.tune.searcher
        refused: RecipeError | BundleError | None = None
        for draw in range(_DRAWS):
            number = len(members) + draw * 1_000_000
            values = suggest(self.space, self.tried(), searcher=searcher, seed=self.tune.seed, number=number)
            try:
                self.plan_for(values)
            except (RecipeError, BundleError) as error:
                refused = error
                continue
            return values
        raise RecipeError(
            f"expected a valid recipe among {_DRAWS} draws from tune.space, found none: {refused}",
            field="tune.space",
            hint=refused.hint if refused else None,
        )

    def _can_go_on(self, members: list[Member]) -> bool:
        if self.tune.searcher != "population" or len(members) < self.tune.population.size:
            return True
        return self._successor(members) is not None

    def _successor(self, members: list[Member]) -> tuple[Member, int, Member, dict[str, Any]] | None:
        def kept(name: str, epoch: int) -> bool:
            return (self.study.folder / name / KEPT / str(epoch)).is_dir()

        return population.successor(members, self.tune, self.space, self.metric, self._values(members), kept)

    def _values(self, members: list[Member]) -> dict[str, dict[str, Any]]:
        """Return all values of each trial, including those of the unchanged recipe."""
        found = {}
        for member in members:
            places = place_of(self.space, self.plan.recipe, member.values)
            if places is not None:
                found[member.name] = {path: self.space[path].value(place) for path, place in places.items()}
        return found

    def _descending(self, name: str, source: Member, epoch: int, instead: Member, values: dict[str, Any]) -> Member:
        """Give a new trial the checkpoint of another one to start from."""
        start = self.study.folder / name / START
        if not start.is_dir():
            draft = start.with_name(f"{START}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            copy_links(self.study.folder / source.name / KEPT / str(epoch), draft)
            draft.replace(start)
        return Member(name, values, facts={"from": source.name, "epoch": epoch, "instead_of": instead.name})


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

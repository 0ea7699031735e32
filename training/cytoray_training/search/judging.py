"""The result of a search, evaluated on the split ``test``, which chose nothing.

The score that chooses the best trial is a selection score: computed on the images that chose it, so too high.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import InputError, UntrainableError
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import Dataset
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_services.kinds.evaluated import Evaluation
from cytoray_services.statistics.counts import UnitScores, unit_scores
from cytoray_services.statistics.intervals import described
from cytoray_training.plan.plan import Plan
from cytoray_training.recipe import Tune
from cytoray_training.search.comparison import Compared, compare_recipes
from cytoray_training.search.grouping import groups_of, unit_of
from cytoray_training.search.held_out import hold_out_test
from cytoray_training.search.study import Member, Study
from cytoray_training.search.trials import Trials

SELECTION = "a selection score: computed on the images that chose it, so too high"
_LAST_SEED = 2**31


@dataclass(frozen=True)
class Judgement:
    """The result of a search on images that chose nothing.

    Attributes
    ----------
    compared
        The best recipe compared with the unchanged recipe; None without a comparison.
    reason
        Why there is no comparison.
    """

    compared: Compared | None
    reason: str = ""

    @property
    def sentence(self) -> str:
        """The result as a sentence."""
        if self.compared is not None:
            return self.compared.sentence
        return f"The best was not compared with the unchanged recipe: {self.reason}."

    def described(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        return {"verdict": None, "reason": self.reason} if self.compared is None else self.compared.described()


def judged_plan(plan: Plan, tune: Tune) -> Plan:
    """Return a plan with a split ``test``, if possible; see :func:`hold_out_test`."""
    data = plan.recipe.data
    if not tune.confirm or not data.draw_test:
        return plan
    dataset = hold_out_test(plan.dataset, data.group_column, seed=tune.seed)
    if dataset is plan.dataset:
        return plan
    held = len(dataset.split("test").images)
    print(f"{held} images are held out of the trials, to score the best", file=sys.stderr, flush=True)
    return plan.on(dataset)


def confirmations(plan: Plan, tune: Tune) -> int:
    """Return the maximum number of training runs that :func:`judge` needs."""
    return 2 * tune.confirm if "test" in plan.dataset.splits else 0


def judge(study: Study, trials: Trials, best: Member, on: str) -> Judgement:
    """Train the best and the unchanged recipe once more, with the same new seeds, and compare them on ``test``.

    The seeds are new because the best trial won partly by its seed. Completed training runs are not repeated.
    """
    reason = _why_not(trials, best)
    if reason:
        return Judgement(None, reason)
    test = trials.plan.dataset.split("test")
    found: dict[str, list[UnitScores]] = {}
    for member in (best, trials.members[0]):
        for number in range(1, trials.tune.confirm + 1):
            trained = _trained(study, trials, member, number, on)
            if trained.state == "failed":
                return Judgement(None, f"{trained.name} failed: {trained.reason}")
            scores = _by_unit(trained, test, trials)
            if trials.metric not in scores.whole:
                return Judgement(None, f"{trained.name} has no score {trials.metric} on the split test")
            found.setdefault(member.name, []).append(scores)
    unit = unit_of(test, trials.plan.recipe.data.group_column)
    return Judgement(compare_recipes(trials.metric, *found.values(), unit=unit, seed=trials.tune.seed))


def scores_on_test(plan: Plan, bundle: str) -> dict[str, dict[str, Any]]:
    """Return the scores of a model on the split ``test``: ``{metric: {score, low, high, units}}``, or empty."""
    if "test" not in plan.dataset.splits:
        return {}
    evaluation = evaluate(Predictor(Bundle.load(bundle)), plan.dataset.split("test"))
    intervals = {name: described(one) for name, one in evaluation.intervals.items()}
    return {name: {"score": value, **intervals.get(name, {})} for name, value in evaluation.metrics.items()}


def _why_not(trials: Trials, best: Member) -> str:
    """Return why nothing can be compared; empty if it can."""
    first, data = trials.members[0], trials.plan.dataset
    if not trials.tune.confirm:
        return "tune.confirm is 0"
    if best.name == first.name:
        return "none of the trials had a better selection score than the unchanged recipe"
    if first.state == "failed":
        return f"the unchanged recipe failed: {first.reason}"
    if "test" not in data.splits:
        return "the data have no split test, and not enough images or groups to hold one out"
    if len(set(groups_of(data.split("test").items, trials.plan.recipe.data.group_column))) < 2:
        return f"the split test has one {unit_of(data, trials.plan.recipe.data.group_column)}"
    return ""


def _trained(study: Study, trials: Trials, member: Member, number: int, on: str) -> Member:
    """Train the recipe of a trial with another seed; an error of the recipe is recorded as its failure."""
    name = f"confirm-{member.name}-seed-{number}"
    known = study.member(name)
    if known is not None and known.state == "failed":
        return known
    seed = (trials.plan.recipe.training.seed + number) % _LAST_SEED
    values: Mapping[str, Any] = {**member.values, "training.seed": seed}
    try:
        return study.train(name, trials.plan_for(values), on=on, values=values)
    except (InputError, UntrainableError) as error:
        begun = study.member(name) or Member(name, dict(values))
        return study.note(replace(begun, state="failed", reason=error.message))


def _by_unit(member: Member, test: Dataset, trials: Trials) -> UnitScores:
    evaluation = evaluate(Predictor(Bundle.load(member.facts["bundle"])), test)
    answers = [one.prediction.scored for one in evaluation.items]
    truths = [one.labelled.truth for one in evaluation.items]
    units = _units(evaluation, trials.plan.recipe.data.group_column)
    return unit_scores(answers, truths, units, trials.plan.task.score, [trials.metric])


def _units(evaluation: Evaluation, column: str | None) -> list[str]:
    return groups_of([one.labelled.items[0] for one in evaluation.items], column)

"""Cross-validation: every image is scored once, by a model that did not use it, with the spread of the scores.

Each fold has three parts: the images that train; some of their groups, which choose the epoch, the decoding and the
calibration; and the images that are scored and choose nothing.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import DatasetError, RecipeError
from cytoray_analysis.plural import counted
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import Dataset
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_services.settings import Settings
from cytoray_services.statistics.intervals import few_units
from cytoray_training.plan.data_check import find_nothing_to_score
from cytoray_training.plan.plan import Plan
from cytoray_training.publish.publish import CHOSEN_BY
from cytoray_training.run.clusters import cluster
from cytoray_training.search.cost import Cost
from cytoray_training.search.grouping import column_of, contents_of, groups_of, unit_of
from cytoray_training.search.study import Member, Study, open_study

CONFIDENCE = 0.95
FINAL = "final"
_ROLES = ("train", "val")
_CHOOSING = 5  # about one in this many of the groups that are not scored chooses


@dataclass(frozen=True)
class Spread:
    """A score over the folds: mean, standard deviation, and a 95 % interval of its expectation."""

    mean: float
    std: float
    low: float
    high: float


def cross_validate(plan: Plan, settings: Settings, *, on: str = "local", fresh: bool = False) -> dict[str, Any]:
    """Train the folds of ``data.folds``, then the model on the recipe's own split, and register that.

    Each training run is a child run of one parent run; after an interruption they continue.

    Returns
    -------
    dict
        What :func:`cytoray_training.train.run_training` returns; ``cross_validation``: ``{metric: {mean, std, low,
        high}}`` over the images that each fold scored and did not choose by; and ``units`` and ``unit``, their number
        and kind.

    Raises
    ------
    RecipeError, DatasetError
        The column is missing, or there are fewer groups than folds; nothing was started.
    """
    began = time.perf_counter()
    data = plan.recipe.data
    if data.folds is None:
        raise RecipeError("expected a number of folds, found none", field="data.folds")
    contents = contents_of(plan.dataset)
    folds = split_folds(
        plan.dataset,
        data.folds,
        group=data.group_column,
        stratify=data.stratify,
        seed=plan.recipe.training.seed,
        contents=contents,
    )
    for number, dataset in enumerate(folds, start=1):
        _require_scores(plan, dataset, number)
    units = len(set(_groups(plan.dataset, data.group_column, contents)))
    unit = unit_of(plan.dataset, data.group_column)
    plain = plan.changed({"data.folds": None})
    wanted = {"folds": data.folds, "group": data.group, "stratify": data.stratify, "parts": folds[0].splits}
    cost = Cost(f"{data.folds} folds and the final model", plain.recipe, data.folds + 1)
    with (
        open_study("folds", plan, settings, wanted=wanted, cost=cost, fresh=fresh) as study,
        cluster(plan.recipe.scale, on),
    ):
        scores: list[Mapping[str, float]] = []
        for number, dataset in enumerate(folds, start=1):
            member = _tested(study, study.train(f"fold-{number}", plain.on(dataset), on=on), dataset)
            scores.append(member.facts["test"])
            for name, value in member.facts["test"].items():
                study.run.log_metrics({f"fold_{name}": value}, step=number)
        ratio = float(np.mean([scored_over_trained(dataset, data.group_column, contents) for dataset in folds]))
        spreads = {name: asdict(spread) for name, spread in spread_of(scores, ratio).items()}
        study.run.log_metrics(
            {f"cv_{name}_{what}": value for name, spread in spreads.items() for what, value in spread.items()}, step=0
        )
        _say(spreads, data.folds, units, unit)
        facts = {"folds": str(data.folds), "study": study.run.run_id, "cross_validation": spreads}
        facts |= {"units": str(units), "unit": unit}
        final = study.train(FINAL, plain, on=on, register=facts)
    return {
        "model": plan.recipe.model.name,
        "version": final.facts["version"],
        "run_id": final.run_id,
        "bundle": final.facts["bundle"],
        "metrics": final.facts["metrics"],
        "metrics_are": CHOSEN_BY,
        "cross_validation": spreads,
        "units": units,
        "unit": unit,
        "seconds": round(time.perf_counter() - began, 1),
    }


def split_folds(
    dataset: Dataset,
    folds: int,
    *,
    group: str | None = None,
    stratify: str | None = None,
    seed: int = 0,
    contents: Mapping[Path, str] | None = None,
) -> list[Dataset]:
    """Divide training and validation items into folds; in each returned data set, one fold is the split ``test``.

    The others are ``train``, except about a fifth, which is ``val``. Items of one group always stay in the same part;
    see :func:`cytoray_training.search.grouping.groups_of`. Other splits of the data set, such as ``test``, are not
    used. Strata are balanced as far as the groups allow (:class:`sklearn.model_selection.StratifiedGroupKFold`).

    Parameters
    ----------
    dataset
        Its splits ``train`` and ``val`` are divided again.
    folds
        Number of folds, at least 2.
    group
        Column of the manifest whose equal values stay together; None: the group of the manifest.
    stratify
        Column of the manifest; without it, strata are the classes.
    seed
        Of the order in which equal groups are distributed.
    contents
        Digests of image files, copies of which stay together; None: computed here.

    Raises
    ------
    DatasetError
        A column is missing, or there are too few groups.
    """
    items = [item for item in dataset.items if item.split in _ROLES]
    groups = _groups(dataset, group, contents_of(dataset) if contents is None else contents)
    if len(set(groups)) < folds:
        raise DatasetError(
            f"expected at least {folds} groups for {folds} folds, found {len(set(groups))} in {dataset.root}",
            field="data.folds" if group is None else "data.group",
            hint="use fewer folds, or a column with more values",
        )
    strata = [item.label or "" for item in items] if stratify is None else column_of(items, stratify, "data.stratify")
    found = []
    for number, scored in enumerate(_parts(strata, groups, folds, seed), start=1):
        rest = [at for at in range(len(items)) if at not in scored]
        left = len({groups[at] for at in rest})
        if left < 2:
            raise DatasetError(
                f"expected at least two groups outside fold {number} of {folds}, one to train on and one to choose the "
                "epoch, found one",
                field="data.folds",
                hint="use more folds, or a column with more values",
            )
        inner = _parts([strata[at] for at in rest], [groups[at] for at in rest], min(_CHOOSING, left), seed)
        smallest = min(inner, key=lambda part: abs(len(part) - len(rest) / _CHOOSING))
        choosing = {rest[at] for at in smallest}
        splits = ["test" if at in scored else "val" if at in choosing else "train" for at in range(len(items))]
        chosen = tuple(replace(item, split=split) for item, split in zip(items, splits, strict=True))
        found.append(replace(dataset, items=chosen, derived_split=False, derived_test=False, lent=()))
    return found


def _parts(strata: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> list[frozenset[int]]:
    """Return the item indices of each fold; none is empty if there are enough groups."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    nothing = np.zeros(len(groups))
    numbers = np.unique(np.array(strata), return_inverse=True)[1].ravel()
    if int(np.bincount(numbers).max()) >= folds:  # else no stratum fits into every fold, and sklearn refuses it
        splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # It is balanced as far as possible.
            warnings.filterwarnings("ignore", message="The least populated class")
            parts = [frozenset(part.tolist()) for _, part in splitter.split(nothing, numbers, groups)]
        if all(parts):
            return parts
    # Large groups of few strata can leave a fold empty; sizes alone never do.
    plain = GroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    return [frozenset(part.tolist()) for _, part in plain.split(nothing, groups=groups)]


def spread_of(scores: Sequence[Mapping[str, float]], ratio: float | None = None) -> dict[str, Spread]:
    """Return mean, standard deviation and a 95 % interval of each score over the folds.

    Student's t interval with the variance corrected for training sets that overlap: s² (1/k + n_test/n_train) (Nadeau &
    Bengio 2003, doi:10.1023/A:1024068626366). It is not clipped to the range of the score.

    Parameters
    ----------
    scores
        One mapping per fold.
    ratio
        Scored images over training images of a fold; None: 1/(k − 1), if all other images train.
    """
    from scipy.stats import t

    count = len(scores)
    ratio = 1 / (count - 1) if ratio is None else ratio
    found = {}
    for name in scores[0]:
        values = np.array([one[name] for one in scores if name in one and math.isfinite(one[name])])
        if len(values) < count:
            continue  # a class that is missing in some fold
        mean, std = float(values.mean()), float(values.std(ddof=1))
        half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * std * math.sqrt(1 / count + ratio)
        found[name] = Spread(mean, std, mean - half, mean + half)
    return found


def _tested(study: Study, member: Member, dataset: Dataset) -> Member:
    """Score the model of a fold on images that neither trained nor chose it."""
    if "test" in member.facts:
        return member
    evaluation = evaluate(Predictor(Bundle.load(member.facts["bundle"])), dataset.split("test"))
    return study.note(replace(member, facts=member.facts | {"test": evaluation.metrics}))


def _require_scores(plan: Plan, fold: Dataset, number: int) -> None:
    for split in ("val", "test"):
        nothing = find_nothing_to_score(fold, plan.task, plan.chosen_task.arguments, plan.metric, split)
        if nothing is not None:
            raise DatasetError(
                f"fold {number} of {plan.recipe.data.folds}: {nothing.problem}",
                field="data.folds",
                hint="use fewer folds, or choose another training.metric",
            )


def _say(spreads: Mapping[str, Mapping[str, float]], folds: int, units: int, unit: str) -> None:
    print(
        f"{folds} folds over {counted(units, unit)}, each scored once by a model that did not use it:",
        file=sys.stderr,
    )
    for name, spread in list(spreads.items())[:3]:
        print(f"{name}  {spread['mean']:.3f} ({spread['low']:.3f} to {spread['high']:.3f})", file=sys.stderr)
    warning = few_units(units, unit)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)


def scored_over_trained(fold: Dataset, column: str | None, contents: Mapping[Path, str] | None = None) -> float:
    """Return the ratio of scored groups to training groups."""
    test, train = (len(set(groups_of(fold.split(split).items, column, contents))) for split in ("test", "train"))
    return test / train


def _groups(dataset: Dataset, column: str | None, contents: Mapping[Path, str]) -> list[str]:
    return groups_of([item for item in dataset.items if item.split in _ROLES], column, contents)

"""Cross-validation: every image is validated once, groups stay together, and what the scores' spread says."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import networkx
import numpy as np

from cytoray_analysis.errors import DatasetError, RecipeError
from cytoray_services.datasets import Dataset, Item, hash_dataset
from cytoray_services.settings import Settings
from cytoray_training.clusters import cluster
from cytoray_training.plan import Plan
from cytoray_training.search.study import open_study

CONFIDENCE = 0.95
FINAL = "final"
_ROLES = ("train", "val")


@dataclass(frozen=True)
class Spread:
    """A score over the folds: mean, standard deviation, and the ends of an interval that holds its expectation."""

    mean: float
    std: float
    low: float
    high: float


def cross_validate(plan: Plan, settings: Settings, *, on: str = "local", fresh: bool = False) -> dict[str, Any]:
    """Train the folds of ``data.folds``, then the model on the recipe's own split, and register that.

    Each training is a child run of one parent run; interrupted, they go on where they were.

    Returns
    -------
    dict
        What :func:`cytoray_training.train.run_training` returns, and ``cross_validation``: ``{metric: {mean, std, low,
        high}}``.

    Raises
    ------
    RecipeError, DatasetError
        There is no such column, or fewer groups than folds; nothing was started.
    """
    began = time.perf_counter()
    data = plan.recipe.data
    if data.folds is None:
        raise RecipeError("expected a number of folds, got none", field="data.folds")
    folds = split_folds(plan.dataset, data.folds, group=data.group, stratify=data.stratify, seed=_seed(plan))
    plain = plan.recipe.model_copy(update={"data": data.model_copy(update={"folds": None})})
    wanted = {"folds": data.folds, "group": data.group, "stratify": data.stratify}
    with (
        open_study("folds", plan, settings, wanted=wanted, fresh=fresh) as study,
        cluster(plan.recipe.scale, on),
    ):
        scores: list[Mapping[str, float]] = []
        for number, dataset in enumerate(folds, start=1):
            fold = replace(plan, recipe=plain, dataset=dataset, dataset_hash=hash_dataset(dataset))
            member = study.train(f"fold-{number}", fold, on=on)
            scores.append(member.facts["metrics"])
            for name, value in member.facts["metrics"].items():
                study.run.log_metrics({f"fold_{name}": value}, step=number)
        spreads = {name: _described(spread) for name, spread in spread_of(scores).items()}
        study.run.log_metrics(
            {f"cv_{name}_{what}": value for name, spread in spreads.items() for what, value in spread.items()}, step=0
        )
        for name, spread in list(spreads.items())[:3]:
            print(f"{name}  {spread['mean']:.3f} ({spread['low']:.3f} to {spread['high']:.3f})", file=sys.stderr)
        facts = {"folds": str(data.folds), "study": study.run.run_id, "cross_validation": spreads}
        final = study.train(FINAL, replace(plan, recipe=plain), on=on, register=facts)
    return {
        "model": plan.recipe.model.name,
        "version": final.facts["version"],
        "run_id": final.run_id,
        "bundle": final.facts["bundle"],
        "metrics": final.facts["metrics"],
        "cross_validation": spreads,
        "seconds": round(time.perf_counter() - began, 1),
    }


def split_folds(
    dataset: Dataset, folds: int, *, group: str | None = None, stratify: str | None = None, seed: int = 0
) -> list[Dataset]:
    """Divide training and validation items into folds; each returned data set validates with one of them.

    Items of one image always stay together, and so do images whose `group` column says the same. What is in another
    split, such as ``test``, stays there. Strata are balanced as far as the groups allow
    (:class:`sklearn.model_selection.StratifiedGroupKFold`).

    Parameters
    ----------
    dataset
        Its splits ``train`` and ``val`` are divided anew.
    folds
        How many, at least 2.
    group, stratify
        Columns of the manifest; strata are classes where no column is given.
    seed
        Of the order in which equal groups are dealt out.

    Raises
    ------
    DatasetError
        A column is missing, or there are fewer groups than folds.
    """
    items = [item for item in dataset.items if item.split in _ROLES]
    groups = _groups(items, group)
    if len(set(groups)) < folds:
        raise DatasetError(
            f"expected at least {folds} groups for {folds} folds, got {len(set(groups))} in {dataset.root}",
            field="data.folds" if group is None else "data.group",
            hint="use fewer folds, or a column with more values",
        )
    strata = [item.label or "" for item in items] if stratify is None else _column(items, stratify, "data.stratify")
    chosen = _parts(strata, groups, folds, seed)
    others = tuple(item for item in dataset.items if item.split not in _ROLES)
    return [
        replace(
            dataset,
            items=tuple(replace(item, split="val" if at in part else "train") for at, item in enumerate(items))
            + others,
            derived_split=False,
        )
        for part in chosen
    ]


def _parts(strata: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> list[frozenset[int]]:
    """Return the places of the items of each fold; none is empty where there are as many groups."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    nothing = np.zeros(len(groups))
    numbers = np.unique(np.array(strata), return_inverse=True)[1].ravel()
    if int(np.bincount(numbers).max()) >= folds:  # else no stratum reaches into every fold, and it refuses
        splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # It is balanced as far as it goes.
            warnings.filterwarnings("ignore", message="The least populated class")
            parts = [frozenset(part.tolist()) for _, part in splitter.split(nothing, numbers, groups)]
        if all(parts):
            return parts
    # Large groups of few strata can leave it a fold without any; sizes alone never do.
    plain = GroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    return [frozenset(part.tolist()) for _, part in plain.split(nothing, groups=groups)]


def spread_of(scores: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Return mean, standard deviation and a 95 % interval of each score over the folds.

    Student's t interval with the variance corrected for training sets that overlap: s² (1/k + 1/(k − 1)), where
    1/(k − 1) is the size of a fold over that of the rest (Nadeau & Bengio 2003, doi:10.1023/A:1024068626366). It is not
    cut to where a score can lie.
    """
    from scipy.stats import t

    count = len(scores)
    found = {}
    for name in scores[0]:
        values = np.array([one[name] for one in scores if name in one and math.isfinite(one[name])])
        if len(values) < count:
            continue  # a class that some fold does not have
        mean, std = float(values.mean()), float(values.std(ddof=1))
        half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * std * math.sqrt(1 / count + 1 / (count - 1))
        found[name] = Spread(mean, std, mean - half, mean + half)
    return found


def _described(spread: Spread) -> dict[str, float]:
    return {"mean": spread.mean, "std": spread.std, "low": spread.low, "high": spread.high}


def _seed(plan: Plan) -> int:
    return plan.recipe.training.seed


def _groups(items: Sequence[Item], column: str | None) -> list[str]:
    """Name the group of each item; images that share a value of the column, and items that share an image, are one."""
    if column is None:
        return [str(item.image) for item in items]
    values = _column(items, column, "data.group")
    shared = networkx.Graph(
        (("image", str(item.image)), ("group", value)) for item, value in zip(items, values, strict=True)
    )
    names: dict[tuple[str, str], str] = {}
    for part in networkx.connected_components(shared):
        name = min(value for kind, value in part if kind == "group")
        names |= dict.fromkeys(part, name)
    return [names["group", value] for value in values]


def _column(items: Sequence[Item], column: str, field: str) -> list[str]:
    lacking = [item for item in items if not item.row.get(column)]
    if lacking:
        known = sorted({name for item in items for name in item.row})
        raise DatasetError(
            f"{lacking[0].image} has nothing in the column {column!r}; columns are {', '.join(known) or 'none'}",
            field=field,
            hint="name a column that is filled in every row",
        )
    return [item.row[column] for item in items]

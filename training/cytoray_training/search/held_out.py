"""The split ``test`` of a search over data without one: a part of the training groups that no trial uses."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from cytoray_services.datasets import Dataset
from cytoray_services.statistics import FEW
from cytoray_training.search.grouping import contents_of, groups_of

_SHARE = 5  # one of this many groups is held out


def hold_out_test(dataset: Dataset, column: str | None = None, *, seed: int = 0) -> Dataset:
    """Return the data set with a fifth of the groups of ``train`` as its split ``test``; unchanged if it has one.

    It is also unchanged if fewer than six groups would be held out, which cannot separate two models.

    Parameters
    ----------
    dataset
        With the splits ``train`` and ``val``.
    column
        Of the manifest, whose equal values stay together; see :func:`cytoray_training.search.grouping.groups_of`.
    seed
        Of the draw, which depends on the names of the images only.
    """
    if "test" in dataset.splits:
        return dataset
    groups = groups_of(dataset.items, column, contents_of(dataset))
    members: dict[str, list[int]] = {}
    for at, group in enumerate(groups):
        members.setdefault(group, []).append(at)
    whole = [places for places in members.values() if all(dataset.items[at].split == "train" for at in places)]
    count = len(whole) // _SHARE
    if count < FEW:
        return dataset

    def place(places: list[int]) -> str:
        name = min(dataset.name_of(dataset.items[at].image) for at in places)
        return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()

    held = {at for places in sorted(whole, key=place)[:count] for at in places}
    items = tuple(replace(item, split="test") if at in held else item for at, item in enumerate(dataset.items))
    return replace(dataset, items=items, derived_test=True)

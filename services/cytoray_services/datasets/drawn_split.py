"""The split of a data set that gives none, or no ``test``: one rule, by a hash of each group.

A group is what the manifest's column ``group`` says (or the column that plays that role), and else the image itself by
the bytes of its file. The hash of a group alone decides, so that an image keeps its split when others are added, and
what belongs together (frames or planes of one recording, tiles of one slide) stays together. No image is moved to give
each class to each split.

``test`` is what judges a model that is trained: it chose nothing. Where no split is given, half of what ``val`` would
be is ``test``; where ``train`` and ``val`` are given, a tenth of the groups of ``train`` is. There is none where it
would be too small to tell two models apart: see :data:`FEWEST`.

A hash can leave all groups of a small set in ``train``. Then the group nearest to the border is lent to ``val``; it
goes back when there are more. So an image may come to train later, but one that trained never validates. A single group
can only be judged by: it is ``val``.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cytoray_services.datasets.content import content_digests, is_there
from cytoray_services.datasets.dataset import Dataset, Item
from cytoray_services.statistics import FEW

TRAINING_SHARE = 0.8
"""The expected share of the groups that train."""
TEST_BEGINS = 0.9
"""From here on a hash draws ``test``, where there is one."""
FEWEST = FEW + 1
"""Groups that a drawn ``test`` must have: the answers of fewer can be exchanged in less than 100 ways, so that no model
could show with an error of 1 % that it is better than another."""


def draw_split(dataset: Dataset, *, with_test: bool = True) -> Dataset:
    """Return the data set with the split of each item drawn, and with what was lent: see :attr:`Dataset.lent`."""
    digests = group_digests(dataset, dataset.items)
    splits = drawn_splits(digests, with_test=with_test)
    items = tuple(replace(item, split=splits[digest]) for item, digest in zip(dataset.items, digests, strict=True))
    lent = tuple(
        dict.fromkeys(
            item.image
            for item, digest in zip(items, digests, strict=True)
            if item.split == "val" and _place(digest) < TRAINING_SHARE and len(splits) > 1
        )
    )
    return replace(dataset, items=items, derived_split=True, derived_test="test" in splits.values(), lent=lent)


def drawn_splits(digests: Sequence[str], *, with_test: bool = True) -> Mapping[str, str]:
    """Return the split of each group of a set by its digest."""
    splits = {digest: "train" if _place(digest) < TRAINING_SHARE else "val" for digest in digests}
    if len(splits) == 1:
        return dict.fromkeys(splits, "val")
    if set(splits.values()) == {"train"}:
        splits[max(splits)] = "val"
    test = [digest for digest in splits if _place(digest) >= TEST_BEGINS]
    if with_test and len(test) >= FEWEST and len(test) < sum(split == "val" for split in splits.values()):
        splits |= dict.fromkeys(test, "test")
    return splits


def draw_test(dataset: Dataset) -> Dataset:
    """Return a data set whose splits are given with a split ``test`` drawn from ``train``, where there is none.

    What shares its group or its truth with an image of another split stays where it is.
    """
    training = [item for item in dataset.items if item.split == "train"]
    if "test" in dataset.splits or "val" not in dataset.splits or not _may_have_test(training):
        return dataset
    digests = group_digests(dataset, training)
    others = [item for item in dataset.items if item.split != "train"]
    test = _apart(training, digests, others)
    if len(test) < FEWEST or len(test) == len(set(digests)):
        return dataset
    chosen = {id(item) for item, digest in zip(training, digests, strict=True) if digest in test}
    items = tuple(replace(item, split="test") if id(item) in chosen else item for item in dataset.items)
    return replace(dataset, items=items, derived_test=True)


def _apart(training: Sequence[Item], digests: Sequence[str], others: Sequence[Item]) -> set[str]:
    """Return the digests of groups that the hash draws, without those that are tied to what is not drawn."""
    ties = {(item.group, None) for item in others if item.group} | {("", item.truth) for item in others if item.truth}
    test = {digest for digest in digests if _place(digest) >= TEST_BEGINS}
    while True:
        kept = [(item, digest) for item, digest in zip(training, digests, strict=True) if digest in test]
        left = [item for item, digest in zip(training, digests, strict=True) if digest not in test]
        tied = ties | {("", item.truth) for item in left if item.truth}
        torn = {digest for item, digest in kept if {(item.group, None), ("", item.truth)} & tied}
        if not torn:
            return test
        test -= torn


def _may_have_test(training: Sequence[Item]) -> bool:
    """Whether there can be groups enough, before any file is read for its hash."""
    return len({item.group or str(item.image) for item in training}) >= FEWEST * 2


def _place(digest: str) -> float:
    """Return where a digest (hexadecimal) lies between 0 and 1, whatever else is in the set."""
    return int(digest[:8], 16) / 2**32


def group_digests(dataset: Dataset, items: Sequence[Item]) -> list[str]:
    """Return the digest of each item's group: of the group's name where there is one, else of its image."""
    alone = [item for item in items if not item.group]
    images = _contents_or_names(dataset, alone)
    return [_digest(f"group {item.group}") if item.group else images[item.image] for item in items]


def _contents_or_names(dataset: Dataset, items: Sequence[Item]) -> dict[Path, str]:
    """Hash images, and the names of those that are missing, which the check reports later."""
    images = dict.fromkeys(item.image for item in items)
    there = [path for path in images if is_there(dataset, path)]
    names = {path: _digest(path.name) for path in images}
    return names | content_digests(dataset, there)


def _digest(text: str) -> str:
    return hashlib.sha256(unicodedata.normalize("NFC", text).encode()).hexdigest()

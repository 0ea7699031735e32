"""The drawn split of a data set without one, or without ``test``: one rule, by a hash of each group.

A group is a value of the column ``group`` of the manifest (or of the column in that role), otherwise the image itself
by the bytes of its file. Only the hash of a group decides, so that an image keeps its split when others are added, and
groups (frames or planes of one recording, tiles of one slide) stay together. Classes are not balanced.

``test`` is for the evaluation of a trained model; it is not used to choose anything. Without a split, half of ``val``
becomes ``test``; with ``train`` and ``val``, a tenth of the groups of ``train``. There is no ``test`` if it would be
too small to distinguish two models: see :data:`FEWEST`.

A hash can put all groups of a small set into ``train``. Then the group nearest to the border is lent to ``val``, and
returns when there are more. So an image may move to ``train`` later, but never from ``train`` to ``val``. A single
group is ``val``.
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
"""The expected share of the groups in ``train``."""
TEST_BEGINS = 0.9
"""Above this a hash draws ``test``, if there is one."""
FEWEST = FEW + 1
"""Minimum number of groups of a drawn ``test``: with fewer there are less than 100 exchanges of answers, so no model
could be significantly better than another at a level of 1 %."""


def draw_split(dataset: Dataset, *, with_test: bool = True) -> Dataset:
    """Return the data set with a drawn split, and the lent images: see :attr:`Dataset.lent`."""
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
    """Return a data set with given splits and a ``test`` drawn from ``train``, if there is none.

    Images that share a group or a truth with another split stay in ``train``.
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
    """Return the digests of drawn groups, without those that share images or truths with others."""
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
    """Whether there may be enough groups, before files are read for their hashes."""
    return len({item.group or str(item.image) for item in training}) >= FEWEST * 2


def _place(digest: str) -> float:
    """Return the position of a hexadecimal digest between 0 and 1, independent of the set."""
    return int(digest[:8], 16) / 2**32


def group_digests(dataset: Dataset, items: Sequence[Item]) -> list[str]:
    """Return the digest of the group of each item: of its name, or of its image without one."""
    alone = [item for item in items if not item.group]
    images = _contents_or_names(dataset, alone)
    return [_digest(f"group {item.group}") if item.group else images[item.image] for item in items]


def _contents_or_names(dataset: Dataset, items: Sequence[Item]) -> dict[Path, str]:
    """Hash images, or the names of missing ones, which the check reports later."""
    images = dict.fromkeys(item.image for item in items)
    there = [path for path in images if is_there(dataset, path)]
    names = {path: _digest(path.name) for path in images}
    return names | content_digests(dataset, there)


def _digest(text: str) -> str:
    return hashlib.sha256(unicodedata.normalize("NFC", text).encode()).hexdigest()

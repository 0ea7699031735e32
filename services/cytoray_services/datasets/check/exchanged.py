"""Check for masks of other images of the set: exchanged or shuffled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.mask_fit import MaskFit, fit_all
from cytoray_services.datasets.check.findings import Checked, Finding

_SEEN = 0.3  # correlation above which a mask fits an image; chance gives 0.05 to 0.2
_TIMES = 2.0  # ratio of the correlation with another image to that with its own
_TIMES_OTHERS = 1.5  # and to that with any third image
_MOST = 4096  # maximum number of pairs of one shape to compare
_FEWEST_SHUFFLED = 3  # masks of other images that make it a problem of the set
_SHARE_SHUFFLED = 0.2
# Real masks fit their own image better than 99 % of the other masks, shuffled ones better than half of them.
_LEAST_BETTER = 0.75
_FEWEST = 8  # minimum number of pairs for this test
_SAMPLE = 256
_ALIKE = 0.5  # correlation above which two masks are too similar, such as those of single cells in the middle
_REMEDY = "Check how images and masks were paired, such as two lists of names in different order, and pair them again."


@dataclass(frozen=True)
class _Pair:
    """An image and its assigned mask."""

    image: Path
    mask: Path
    fit: MaskFit


def find_exchanged_masks(checked: Checked) -> Iterator[Finding]:
    """Find masks that lie on other images of their shape, and sets whose masks fit any image as well as their own.

    A mask counts as another image's only where each of the two fits the other best, and its own much worse.
    """
    groups = _groups(checked)
    count = sum(map(len, groups))
    owners: dict[Path, Path] = {}  # of the masks that lie on another image: that image
    for pairs in groups:
        owners |= _owners(pairs)
    if len(owners) >= max(_FEWEST_SHUFFLED, _SHARE_SHUFFLED * count):
        mask, image = next(iter(owners.items()))
        problem = (
            f"at least {len(owners)} of {count} masks fit other images of the set, not their own: "
            f"{checked.name(mask)} fits {checked.name(image)}"
        )
        yield Finding("warning", ".", problem, _REMEDY, "exchanged-masks")
        return
    own = {pair.mask: pair.image for pairs in groups for pair in pairs}
    for mask, image in owners.items():
        if _is_exchanged(mask, own, owners):
            problem = f"it does not fit its image {checked.name(own[mask])}: it fits {checked.name(image)}"
            remedy = "Look at both images with it, and give each its own mask."
            yield Finding("warning", checked.name(mask), problem, remedy, "exchanged-masks")
    unlike = sum(_fits_none(pairs) for pairs in groups)
    if 2 * unlike > count:
        problem = f"{unlike} of {count} masks fit their images no better than masks of other images do"
        yield Finding("warning", ".", problem, _REMEDY, "exchanged-masks")


def _groups(checked: Checked) -> list[list[_Pair]]:
    """Return pairs by what allows to lay their masks on each other's images."""
    by_form: dict[tuple[object, ...], list[_Pair]] = defaultdict(list)
    for (image, mask), facts in checked.facts.items():
        if mask is not None and facts.fit is not None:
            form = (facts.shape, facts.fit.seen.shape)
            by_form[form].append(_Pair(image, mask, facts.fit))
    return [pairs for pairs in by_form.values() if len(pairs) > 1]


def _matrix(pairs: Sequence[_Pair]) -> NDArray[np.float32]:
    """Return how each mask fits each image; (image, mask)."""
    return fit_all(np.stack([pair.fit.seen for pair in pairs]), np.stack([pair.fit.drawn for pair in pairs]))


def _owners(pairs: Sequence[_Pair]) -> dict[Path, Path]:
    """Return the masks that lie on another image than their own, each with that image."""
    # What fits its own image so well cannot fit another twice as well.
    doubtful = [pair for pair in pairs if pair.fit.as_it_is < 1 / _TIMES][:_MOST]
    if len(doubtful) < 2:
        return {}
    fits = _matrix(doubtful)
    own = fits.diagonal().copy()
    np.fill_diagonal(fits, -1.0)
    best_image, best_mask = fits.argmax(axis=0), fits.argmax(axis=1)
    mutual = {
        mask: image
        for mask, image in enumerate(best_image.tolist())
        if best_mask[image] == mask and fits[image, mask] >= max(_SEEN, _TIMES * max(own[mask], own[image]))
    }
    owners = {}
    for mask, image in mutual.items():
        others = max(_second(fits[:, mask]), _second(fits[image]))
        # Two that fit each other both ways are there by chance hardly ever.
        if mutual.get(image) == mask or fits[image, mask] >= _TIMES_OTHERS * others:
            owners[doubtful[mask].mask] = doubtful[image].image
    return owners


def _second(values: NDArray[np.float32]) -> float:
    return float(np.partition(values, -2)[-2])


def _is_exchanged(mask: Path, own: Mapping[Path, Path], owners: Mapping[Path, Path]) -> bool:
    """Whether the chain from a mask to its fitting image, and on from the mask of that image, leads back to it."""
    masks = {image: other for other, image in own.items()}
    place = mask
    for _ in owners:
        if place not in owners:
            return False
        place = masks[owners[place]]
        if place == mask:
            return True
    return False


def _fits_none(pairs: Sequence[_Pair]) -> int:
    """Return the number of masks that fit their images no better than others, or 0 if unknown."""
    sample = [pairs[place] for place in np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), _SAMPLE)).astype(int))]
    fits = _matrix(sample)
    drawn = np.stack([pair.fit.drawn for pair in sample]).astype(np.float32)
    differ = np.max([np.abs(drawn[:, feature] @ drawn[:, feature].T) for feature in range(drawn.shape[1])], axis=0)
    comparable = differ < _ALIKE
    known = np.count_nonzero(comparable, axis=1) >= _FEWEST - 1
    if np.count_nonzero(known) < _FEWEST:
        return 0
    better = (fits < fits.diagonal()[:, np.newaxis]) & comparable
    share = np.count_nonzero(better, axis=1)[known] / np.count_nonzero(comparable, axis=1)[known]
    return len(pairs) if float(share.mean()) < _LEAST_BETTER else 0

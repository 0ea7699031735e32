"""Check of masks against their images: mirrored, transposed, or shifted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cytoray_analysis.mask_fit import MaskFit, describe_turn
from cytoray_services.datasets.check.findings import Checked, Finding

_SEEN = 0.25  # correlation above which a mask fits its image
_SEEN_ALONE = 0.35  # if no other mask agrees
_TIMES = 2.0  # ratio of another position to its own
_AGREEING = 3  # masks with the same problem that make it an error of the whole set
_LEAST_STEPS = 2  # minimum shift of masks, in steps of the measurement


def find_misplaced_masks(checked: Checked) -> Iterator[Finding]:
    """Find masks that fit their images only when mirrored, transposed or moved.

    A problem of most masks is an error of the whole set; others are warnings.
    """
    fits = {
        truth: facts.fit for (_, truth), facts in checked.facts.items() if truth is not None and facts.fit is not None
    }
    turned = {mask: _turn_of(fit) for mask, fit in fits.items() if fit.turned >= _SEEN and _is_turned(fit)}
    shared = _most(turned)
    said = {mask for mask, turn in turned.items() if turn == shared}
    if shared is not None and _are_many(len(said), len(fits)):
        problem = f"{len(said)} of {len(fits)} masks do not fit their images: they fit when they are {shared}"
        remedy = "Check their export, and export them in the orientation of the images."
        yield Finding("error", ".", problem, remedy, "misplaced-masks")
    else:
        said = set()
    for mask, turn in turned.items():
        if mask not in said and fits[mask].turned >= _SEEN_ALONE:
            problem = f"it does not fit its image {_image_of(checked, mask)}: it fits when it is {turn}"
            yield Finding(
                "warning", checked.name(mask), problem, "Compare both, and correct the mask.", "misplaced-masks"
            )
    yield from _find_shifted(checked, {mask: fit for mask, fit in fits.items() if mask not in turned})


def _find_shifted(checked: Checked, fits: Mapping[Path, MaskFit]) -> Iterator[Finding]:
    seen = {mask: fit for mask, fit in fits.items() if fit.shifted >= _SEEN}
    if not seen:
        return
    steps = {mask: np.array(fit.shift) / fit.step for mask, fit in seen.items()}
    common = np.median([shift for shift in steps.values() if len(shift) == len(next(iter(steps.values())))], axis=0)
    apart = float(np.abs(common[-2:]).max()) >= _LEAST_STEPS
    agreeing = {
        mask for mask, shift in steps.items() if len(shift) == len(common) and np.abs(shift - common).max() <= 1.0
    }
    said: set[Path] = set()
    if apart and _are_many(len(agreeing), len(fits)):
        said = agreeing
        pixels = np.median([fits[mask].shift for mask in agreeing], axis=0)
        problem = f"{len(said)} of {len(fits)} masks are shifted from their images, all by about the same distance"
        remedy = f"Move the masks by {_show(pixels, fits[next(iter(said))].axes)} and crop both; check their export."
        yield Finding("error", ".", problem, remedy, "misplaced-masks")
    for mask, fit in seen.items():
        alone = fit.shifted >= _SEEN_ALONE and fit.shifted >= _TIMES * fit.as_it_is
        if mask not in said and alone and float(np.abs(steps[mask][-2:]).max()) >= _LEAST_STEPS:
            far = max(map(abs, fit.shift[-2:]))
            problem = f"it is shifted from its image {_image_of(checked, mask)} by about {far} pixels"
            remedy = f"Move it by {_show(np.array(fit.shift), fit.axes)} and crop both, or remove the pair."
            yield Finding("warning", checked.name(mask), problem, remedy, "misplaced-masks")


def _image_of(checked: Checked, mask: Path) -> str:
    return next(checked.name(image) for image, truth in checked.facts if truth == mask)


def _is_turned(fit: MaskFit) -> bool:
    return fit.turned >= _TIMES * fit.as_it_is and fit.turned >= fit.shifted - 0.02


def _turn_of(fit: MaskFit) -> str:
    return describe_turn(fit.turn, fit.axes)


def _most(turned: Mapping[Path, str]) -> str | None:
    return Counter(turned.values()).most_common(1)[0][0] if turned else None


def _are_many(count: int, total: int) -> bool:
    return count >= _AGREEING and 2 * count > total


def _show(shift: np.ndarray, axes: str) -> str:
    """Return a shift as text: ``+5 along Y, -3 along X``."""
    parts = [f"{round(distance):+d} along {axis}" for axis, distance in zip(axes, shift.tolist(), strict=True)]
    return ", ".join(part for part in parts if not part.startswith("+0"))

"""The check of target images: what a label-free model is to predict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cytoray_analysis.images import Image
from cytoray_analysis.registration import estimate_shift
from cytoray_services.datasets.check.files import read_pixels, size_of
from cytoray_services.datasets.check.findings import Checked, Facts, Finding
from cytoray_services.datasets.check.images import Examined, open_truth, read_item_image
from cytoray_services.datasets.dataset import Dataset, Item

_AGREEING = 3  # so many pairs must share a shift to make it one of the whole set


def examine_pair(item: Item, dataset: Dataset) -> Facts:
    """Return the facts of an image and its target image."""
    examined = read_item_image(item, dataset)
    if not isinstance(examined, Examined):
        return examined
    facts = examined.facts
    opened = open_truth(item, dataset, "target")
    if isinstance(opened, Finding):
        return replace(facts, findings=(*facts.findings, opened))
    target, name = opened
    problem = _misfit(target, name, facts)
    if problem is not None:
        return replace(facts, findings=(*facts.findings, problem))
    pixels = read_pixels(target, name)
    if isinstance(pixels, Finding):
        return replace(facts, findings=(*facts.findings, pixels))
    channels = pixels if "C" in target.axes else pixels[np.newaxis]
    constant = tuple(_find_constant(channels, target, name))
    facts = replace(facts, findings=(*facts.findings, *constant), target_channels=len(channels))
    if constant or examined.pixels.min() == examined.pixels.max():
        return facts
    return replace(facts, shift=estimate_shift(examined.pixels, channels))


def _misfit(target: Image, name: str, facts: Facts) -> Finding | None:
    # A stack may have one plane as its target: a stack in, a plane out.
    sizes = (facts.shape, facts.shape[1:]) if len(facts.shape) == 3 else (facts.shape,)
    if "T" in target.axes:
        problem = f"a target has axes YX or ZYX, and C for several channels, this one has {target.axes}"
        return Finding("error", name, problem, "Split the movie into single images.", "wrong-axes")
    if target.spatial_shape not in sizes:
        problem = f"its size is {size_of(target.spatial_shape)}, that of its image {size_of(facts.shape)}"
        return Finding("error", name, problem, "Crop or resample both together.", "size-mismatch")
    return None


def _find_constant(channels: np.ndarray, target: Image, name: str) -> Iterator[Finding]:
    for channel, pixels in zip(target.channels, channels, strict=True):
        if pixels.min() == pixels.max():
            where = f" of channel {channel!r}" if len(channels) > 1 else ""
            problem = f"every pixel{where} has the value {pixels.min()}, so there is nothing to predict"
            remedy = "Look whether the stain was exported; leave out the pair if it failed."
            yield Finding("warning", name, problem, remedy, "constant-target")


def compare_target_channels(checked: Checked) -> Iterator[Finding]:
    """Find targets that have another number of channels than most."""
    counts = Counter(facts.target_channels for facts in checked.facts.values() if facts.target_channels)
    for (_, target), facts in checked.facts.items():
        (usual, _), *_ = counts.most_common(1) or [(0, 0)]
        if target is not None and facts.target_channels not in (0, usual):
            problem = f"expected {usual} channels like the other targets, got {facts.target_channels}"
            yield Finding("error", checked.name(target), problem, "Give every image the same stains.", "wrong-channels")


def find_shifted_targets(checked: Checked) -> Iterator[Finding]:
    """Find targets that do not lie on their images, as registration sees it.

    A shift that most pairs share is an error of the whole set; others are warnings.
    """
    shifts = {
        target: facts.shift
        for (_, target), facts in checked.facts.items()
        if target is not None and facts.shift is not None and facts.shift.trusted
    }
    if not shifts:
        return
    common = np.median([shift.pixels for shift in shifts.values()], axis=0)
    agreeing = {target for target, shift in shifts.items() if np.abs(shift.pixels - common).max() <= 1.0}
    most = len(agreeing) >= _AGREEING and 2 * len(agreeing) > len(checked.facts)
    shared = agreeing if most and all(shifts[target].misplaced for target in agreeing) else set()
    if shared:
        problem = f"{len(shared)} of {len(checked.facts)} targets lie beside their images, all by the same distance"
        remedy = f"Move the targets by {_show(common)} and crop both; look at what cut or aligned them."
        yield Finding("error", ".", problem, remedy, "shifted-target")
    for target, shift in shifts.items():
        if shift.misplaced and target not in shared:
            problem = f"it lies {shift.distance:.0f} pixels beside its image"
            remedy = f"Move it by {_show(shift.pixels)} and crop both, or leave out the pair."
            yield Finding("warning", checked.name(target), problem, remedy, "shifted-target")


def _show(shift: Sequence[float] | np.ndarray) -> str:
    """Say a shift in words: ``+5.0 along Y, -3.0 along X``."""
    return ", ".join(f"{distance:+.1f} along {axis}" for axis, distance in zip("YX", shift, strict=True))

"""Check of the target images of label-free prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cytoray_analysis.fine_structure import is_linear_copy
from cytoray_analysis.images import Image
from cytoray_analysis.mask_fit import describe_turn
from cytoray_analysis.registration import Shift, estimate_shift, estimate_turn
from cytoray_services.datasets.check.files import hash_pixels, read_pixels, size_of
from cytoray_services.datasets.check.findings import Checked, Facts, Finding, name_in
from cytoray_services.datasets.check.images import Examined, open_truth, read_item_image, warned
from cytoray_services.datasets.check.looks import look_of_target
from cytoray_services.datasets.dataset import Dataset, Item

_AGREEING = 3  # pairs with the same shift that make it a problem of the whole set
_TIMES = 1.1  # ratio of the confidence of a turned target to that of a moved one
_TIMES_MOVED = 1.5  # for one that is turned and moved
_SAMPLE = 2**14  # pixels to compare first
_NEARLY_A_LINE = 0.98  # correlation above which all pixels are compared


def examine_pair(item: Item, dataset: Dataset) -> Facts:
    """Return the facts of an image and its target image."""
    examined = read_item_image(item, dataset)
    if not isinstance(examined, Examined):
        return examined
    facts = examined.facts
    opened = open_truth(item, dataset, "target", examined.image.axes)
    if isinstance(opened, Finding):
        return replace(facts, findings=(*facts.findings, opened))
    target, name = opened
    problem = _misfit(target, name, facts, name_in(dataset, item.image))
    if problem is not None:
        return replace(facts, findings=(*facts.findings, problem))
    pixels = read_pixels(target, name)
    if isinstance(pixels, Finding):
        return replace(facts, findings=(*facts.findings, pixels))
    channels = pixels if "C" in target.axes else pixels[np.newaxis]
    constant = tuple(_find_constant(channels, target, name))
    found = (*facts.findings, *warned(target, name), *constant)
    digest = "" if constant else hash_pixels(target.axes, [pixels])
    facts = replace(facts, findings=found, target_channels=len(channels), truth_digest=digest)
    if constant or examined.pixels.min() == examined.pixels.max():
        return replace(facts, truth_look=look_of_target(target, pixels, None))
    shift = estimate_shift(examined.pixels, channels)
    turn = "" if shift.trusted and not shift.misplaced else _turn(examined.pixels, channels, shift)
    return replace(
        facts,
        shift=shift,
        turn=turn,
        copied=_is_copy(examined, channels),
        truth_look=look_of_target(target, pixels, shift.confidence),
    )


def _turn(image: np.ndarray, target: np.ndarray, shift: Shift) -> str:
    turn, turned = estimate_turn(image, target)
    # A target that fits when turned does not fit by chance; one that must be moved as well may.
    times = _TIMES_MOVED if turned.misplaced else _TIMES
    fits = turned.trusted and turned.confidence >= times * shift.confidence
    return describe_turn(turn, "YX") if fits else ""


def _is_copy(examined: Examined, target: np.ndarray) -> bool:
    """Whether each channel of a target equals a channel of its input, or a plane of one, or its inverse."""
    image, size = examined.pixels, target[0].size
    seen = image.reshape(-1, size) if image.size % size == 0 else image.reshape(len(image), -1)[:0]
    return all(any(_is_line(one, other) for one in seen) for other in target.reshape(len(target), -1))


def _is_line(one: np.ndarray, other: np.ndarray) -> bool:
    step = max(1, len(one) // _SAMPLE)
    few, as_many = one[::step].astype(np.float64), other[::step].astype(np.float64)
    if few.std() == 0 or as_many.std() == 0 or abs(float(np.corrcoef(few, as_many)[0, 1])) < _NEARLY_A_LINE:
        return False
    return is_linear_copy(one, other) or is_linear_copy(one, -other.astype(np.float64))


def _misfit(target: Image, name: str, facts: Facts, image: str) -> Finding | None:
    # The target of a stack may be a single plane.
    sizes = (facts.shape, facts.shape[1:]) if len(facts.shape) == 3 else (facts.shape,)
    if "T" in target.axes:
        problem = f"expected a target with axes YX or ZYX, and C for several channels, got {target.axes}"
        return Finding("error", name, problem, "Split the movie into single images.", "wrong-axes")
    if target.spatial_shape not in sizes:
        problem = f"its size is {size_of(target.spatial_shape)}, that of its image {image} {size_of(facts.shape)}"
        return Finding("error", name, problem, "Crop or resample both together.", "size-mismatch")
    return None


def _find_constant(channels: np.ndarray, target: Image, name: str) -> Iterator[Finding]:
    for channel, pixels in zip(target.channels, channels, strict=True):
        if pixels.min() == pixels.max():
            where = f" of channel {channel!r}" if len(channels) > 1 else ""
            problem = f"every pixel{where} has the value {pixels.min()}, so there is nothing to predict"
            remedy = "Check whether the stain was exported; remove the pair if it failed."
            yield Finding("warning", name, problem, remedy, "constant-target")


def compare_target_channels(checked: Checked) -> Iterator[Finding]:
    """Find targets with another number of channels than most."""
    counts = Counter(facts.target_channels for facts in checked.facts.values() if facts.target_channels)
    for (_, target), facts in checked.facts.items():
        (usual, _), *_ = counts.most_common(1) or [(0, 0)]
        if target is not None and facts.target_channels not in (0, usual):
            problem = f"expected {usual} channels like the other targets, got {facts.target_channels}"
            yield Finding("error", checked.name(target), problem, "Give every image the same stains.", "wrong-channels")


def find_shifted_targets(checked: Checked) -> Iterator[Finding]:
    """Find targets that are shifted from their images, by registration.

    A shift of most pairs is an error of the whole set; others are warnings. Mirrored or transposed targets are not
    included.
    """
    shifts = {
        target: facts.shift
        for (_, target), facts in checked.facts.items()
        if target is not None and facts.shift is not None and facts.shift.trusted and not facts.turn
    }
    if not shifts:
        return
    common = np.median([shift.pixels for shift in shifts.values()], axis=0)
    agreeing = {target for target, shift in shifts.items() if np.abs(shift.pixels - common).max() <= 1.0}
    shared = (
        agreeing
        if _are_most(len(agreeing), checked) and all(shifts[target].misplaced for target in agreeing)
        else set()
    )
    if shared:
        problem = (
            f"{len(shared)} of {len(checked.facts)} targets are shifted from their images, all by the same distance"
        )
        remedy = f"Move the targets by {_show(common)} and crop both; check how they were cropped or aligned."
        yield Finding("error", ".", problem, remedy, "shifted-target")
    images = {target: checked.name(image) for image, target in checked.facts}
    for target, shift in shifts.items():
        if shift.misplaced and target not in shared:
            problem = f"it is shifted by {shift.distance:.0f} pixels from its image {images[target]}"
            remedy = f"Move it by {_show(shift.pixels)} and crop both, or remove the pair."
            yield Finding("warning", checked.name(target), problem, remedy, "shifted-target")


def find_turned_targets(checked: Checked) -> Iterator[Finding]:
    """Find targets that fit their images only when mirrored or transposed."""
    turned = {files: facts.turn for files, facts in checked.facts.items() if facts.turn}
    usual, count = Counter(turned.values()).most_common(1)[0] if turned else ("", 0)
    whole = _are_most(count, checked)
    if whole:
        problem = f"{count} of {len(checked.facts)} targets do not fit their images: they fit when they are {usual}"
        remedy = "Check their export, and export them in the orientation of the images."
        yield Finding("error", ".", problem, remedy, "turned-target")
    for (image, target), turn in turned.items():
        if target is not None and not (whole and turn == usual):
            problem = f"it does not fit its image {checked.name(image)}: it fits when it is {turn}"
            yield Finding("warning", checked.name(target), problem, "Compare both, and correct it.", "turned-target")


def find_copied_targets(checked: Checked) -> Iterator[Finding]:
    """Find targets that are copies of their inputs."""
    copied = [files for files, facts in checked.facts.items() if facts.copied]
    remedy = "Check that inputs and targets are different channels; a model would learn to copy."
    if _are_most(len(copied), checked):
        problem = f"{len(copied)} of {len(checked.facts)} targets equal their inputs except for brightness and contrast"
        yield Finding("warning", ".", problem, remedy, "copied-target")
        return
    for image, target in copied:
        if target is not None:
            problem = f"it equals its input {checked.name(image)} except for brightness and contrast"
            yield Finding("warning", checked.name(target), problem, remedy, "copied-target")


def _are_most(count: int, checked: Checked) -> bool:
    return count >= _AGREEING and 2 * count > len(checked.facts)


def _show(shift: Sequence[float] | np.ndarray) -> str:
    """Return a shift as text: ``+5.0 along Y, -3.0 along X``."""
    return ", ".join(f"{distance:+.1f} along {axis}" for axis, distance in zip("YX", shift, strict=True))

"""Pairing of images and truths in a plain folder by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images.names import image_stem, is_image_name, normal_name, pictured_stem, truth_stem

Key = Callable[[Path], str]
# From the strictest rule to the weakest; later rules skip paired files.
_RULES: tuple[tuple[Key, Key], ...] = (
    (normal_name, normal_name),
    (image_stem, image_stem),
    (image_stem, truth_stem),
    (pictured_stem, truth_stem),
)


@dataclass(frozen=True)
class Pairs:
    """Images with their truths, and truths without an image.

    Attributes
    ----------
    truth_of
        Truth by image; images without a truth are absent.
    unused
        Truths that look like images, without an image.
    """

    truth_of: Mapping[Path, Path]
    unused: tuple[Path, ...]


def pair_by_name(images: Sequence[Path], truths: Sequence[Path]) -> Pairs:
    """Pair images with truths: by full name, by name without format, and without ``_mask``, ``_labels`` … .

    Names are compared in composed Unicode, and only known formats are removed: see
    :mod:`cytoray_analysis.images.names`.

    Raises
    ------
    DatasetError
        Two images claim one truth, or two truths one image.
    """
    truth_of: dict[Path, Path] = {}
    for image_key, truth_key in _RULES:
        taken = set(truth_of.values())
        open_images = _by(image_key, (path for path in images if path not in truth_of))
        open_truths = _by(truth_key, (path for path in truths if path not in taken))
        for key in open_images.keys() & open_truths.keys():
            _require_one(open_images[key], open_truths[key])
            truth_of[open_images[key][0]] = open_truths[key][0]
    taken = set(truth_of.values())
    _refuse_claims(truth_of, images)
    _refuse_claims({truth: image for image, truth in truth_of.items()}, truths)
    return Pairs(truth_of, tuple(path for path in truths if path not in taken and is_image_name(path)))


def _by(key: Key, paths: Iterable[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        found[key(path)].append(path)
    return found


def _keys(path: Path) -> set[str]:
    return {normal_name(path), image_stem(path), truth_stem(path)}


def _refuse_claims(partner_of: Mapping[Path, Path], paths: Sequence[Path]) -> None:
    """Raise an error for an unpaired file with the same stem as a paired one."""
    paired: dict[str, Path] = {image_stem(path): path for path in partner_of} | {
        image_stem(partner): path for path, partner in partner_of.items()
    }
    for path in paths:
        if path in partner_of or not is_image_name(path):
            continue
        other = next((paired[key] for key in sorted(_keys(path)) if key in paired), None)
        if other is not None:
            _refuse([other, path], partner_of[other])


def _require_one(images: Sequence[Path], truths: Sequence[Path]) -> None:
    if len(images) > 1:
        _refuse(images, truths[0])
    if len(truths) > 1:
        _refuse(truths, images[0])


def _refuse(rivals: Sequence[Path], partner: Path) -> None:
    names = " and ".join(f"{path.parent.name}/{path.name}" for path in rivals[:3])
    raise DatasetError(
        f"{names} have the same name and claim the same {partner.parent.name}/{partner.name}",
        field="name",
        hint="give each image a truth with its name, or write a manifest.csv",
    )

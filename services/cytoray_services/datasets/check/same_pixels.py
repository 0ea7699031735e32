"""Check for files with the same pixels under two names, in one split.

Across splits the same image is an error: see :func:`cytoray_services.datasets.check.across.find_duplicates`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cytoray_services.datasets.check.findings import Checked, Finding
from cytoray_services.datasets.dataset import Item

_REMEDY = "Find which one is the copy, then restore the other or remove one."


def find_same_pixels(checked: Checked) -> Iterator[Finding]:
    """Find images of one split that are equal, and masks or targets of different images that are equal."""
    items = [items[0] for items in checked.dataset.images]
    yield from _twice(checked, items, lambda item: item.image, lambda item: checked.of(item).digest, "same-image")
    truths = [item for item in items if item.truth is not None]
    yield from _twice(checked, truths, _truth_of, lambda item: checked.of(item).truth_digest, "same-truth")


def _truth_of(item: Item) -> Path:
    return item.truth or item.image


def _twice(
    checked: Checked, items: Iterable[Item], place: Callable[[Item], Path], digest: Callable[[Item], str], code: str
) -> Iterator[Finding]:
    first: dict[str, Item] = {}
    seen: set[Path] = set()
    for item in items:
        path = place(item)
        if not digest(item) or path in seen:
            continue
        seen.add(path)
        other = first.setdefault(digest(item), item)
        if other is item or (code == "same-image" and other.split != item.split):
            continue
        if code == "same-truth" and checked.of(other).digest == checked.of(item).digest:
            continue  # the images are the same as well, which is reported for them
        problem = f"its pixels are those of {checked.name(place(other))}"
        yield Finding("note", checked.name(path), problem, _REMEDY, code)

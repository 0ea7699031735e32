"""From an edit to what it changes.

Rules: an added or painted object takes free pixels only, unless the edit says ``over``; a number is never used for
another object again, not even after an undo; what is split off is a new object of the person; an edit that changes
nothing is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError
from cytoray_services.corrections.change import Change, CorrectedObject, pixel_runs
from cytoray_services.corrections.corrected import Corrected
from cytoray_services.corrections.edits import (
    Add,
    Classify,
    CopyPlane,
    Delete,
    Edit,
    Finish,
    Interpolate,
    Merge,
    Paint,
    Redo,
    Reopen,
    Split,
    Undo,
)
from cytoray_services.corrections.interpolating import shapes_between
from cytoray_services.corrections.shapes import Patch, inside_outline, under_brush
from cytoray_services.corrections.splitting import divided

_LAST_LABEL = 2**32 - 1
MOST_REGIONS = 4096


def apply_edit(corrected: Corrected, edit: Edit, who: str) -> tuple[Edit, Change]:
    """Return an edit as it is to be recorded, and what it changes; `corrected` stays as it is.

    Parameters
    ----------
    who
        The person.

    Raises
    ------
    RequestError
        The edit names an object, plane, frame, region or edit that does not exist, or changes nothing.
    """
    if isinstance(edit, Undo | Redo):
        return corrected.undoing(edit, who)
    change = _OPERATIONS[type(edit)](corrected, edit, who)
    if not change:
        raise RequestError(
            f"expected an edit that changes something, got {edit.op}, which changes nothing here",
            field=edit.op,
            hint="pixels of other objects are taken only with over: true"
            if getattr(edit, "over", True) is False
            else "the labels are like that already",
        )
    return edit, change


def _delete(corrected: Corrected, edit: Delete, who: str) -> Change:
    _require_labels(corrected, edit.labels)
    chosen = dict.fromkeys(edit.labels, 0)
    objects = {label: (corrected.objects[label], None) for label in chosen}
    return Change(_renamed(corrected, chosen), objects)


def _merge(corrected: Corrected, edit: Merge, who: str) -> Change:
    _require_labels(corrected, edit.labels)
    first, *others = dict.fromkeys(edit.labels)
    objects = {label: (corrected.objects[label], None) for label in others}
    return Change(_renamed(corrected, dict.fromkeys(others, first)), objects)


def _classify(corrected: Corrected, edit: Classify, who: str) -> Change:
    _require_labels(corrected, edit.labels)
    objects = {}
    for label in dict.fromkeys(edit.labels):
        before = corrected.objects[label]
        if before.class_name != edit.class_name:
            objects[label] = (before, before.model_copy(update={"class_name": edit.class_name}))
    return Change(objects=objects)


def _add(corrected: Corrected, edit: Add, who: str) -> Change:
    _require_place(corrected, t=edit.t, z=edit.z)
    patch = inside_outline(edit.outline, corrected.shape[2:])
    return _drawn(corrected, [(edit.t, edit.z, patch)], None, who, over=edit.over, class_name=edit.class_name)


def _paint(corrected: Corrected, edit: Paint, who: str) -> Change:
    _require_place(corrected, t=edit.t, z=edit.z)
    if edit.label is not None:
        _require_labels(corrected, [edit.label])
    patch = under_brush(edit.stroke, edit.radius, corrected.shape[2:])
    if not edit.erase:
        return _drawn(corrected, [(edit.t, edit.z, patch)], edit.label, who, over=edit.over)
    if edit.label is None:
        raise RequestError("expected the label of the object to erase, got none", field="label", hint="give its label")
    before = corrected.labels[(edit.t, edit.z, *patch.place)]
    after = np.where(patch.inside & (before == edit.label), np.uint32(0), before)
    runs = _runs_of(corrected, edit.t, edit.z, patch, before, after)
    return Change(runs, _vanished(corrected, runs))


def _split(corrected: Corrected, edit: Split, who: str) -> Change:
    _require_labels(corrected, [edit.label])
    _require_place(corrected, t=edit.t, z=edit.z or 0)
    planes = slice(None) if edit.z is None else slice(edit.z, edit.z + 1)
    mask = corrected.labels[edit.t, planes] == edit.label
    parts, origin = [], (0, 0)
    if mask.any():
        rows, columns = (np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 2), (0, 1)))
        origin = int(rows[0]), int(columns[0])
        mask = mask[:, origin[0] : int(rows[-1]) + 1, origin[1] : int(columns[-1]) + 1]
        parts = divided(mask, edit.line, origin)
    if not parts:
        raise RequestError(
            f"expected a line that divides object {edit.label}, got one that does not cross it from side to side",
            field="line",
            hint="begin and end the line outside of the object",
        )
    after = np.full(mask.shape, edit.label, np.int64)
    objects: dict[int, tuple[CorrectedObject | None, CorrectedObject | None]] = {}
    class_name = corrected.objects[edit.label].class_name
    for number, part in enumerate(parts, start=_next_label(corrected, len(parts))):
        after[part] = number
        objects[number] = (None, CorrectedObject(made="person", by=who, class_name=class_name))
    z, y, x = np.nonzero(mask)
    places = np.ravel_multi_index(
        (np.full_like(z, edit.t), z + (edit.z or 0), y + origin[0], x + origin[1]), corrected.shape
    )
    runs = pixel_runs(places, np.full(len(places), edit.label), after[mask], corrected.shape[3])
    return Change(runs, objects)


def _copy_plane(corrected: Corrected, edit: CopyPlane, who: str) -> Change:
    mask = _plane_of(corrected, edit.label, edit.t, edit.source)
    _require_place(corrected, t=edit.t, z=edit.target)
    return _drawn(corrected, [(edit.t, edit.target, Patch(0, 0, mask))], edit.label, who, over=edit.over)


def _interpolate(corrected: Corrected, edit: Interpolate, who: str) -> Change:
    first, last = sorted((edit.source, edit.target))
    if last - first < 2:
        raise RequestError(
            f"expected two planes with planes in between, got {edit.source} and {edit.target}",
            field="to",
            hint="choose planes that are at least 2 apart",
        )
    masks = [_plane_of(corrected, edit.label, edit.t, plane) for plane in (first, last)]
    shapes = shapes_between(masks[0], masks[1], last - first - 1, corrected.shape[2:])
    drawn = [(edit.t, plane, patch) for plane, patch in enumerate(shapes, start=first + 1)]
    return _drawn(corrected, drawn, edit.label, who, over=edit.over)


def _finish(corrected: Corrected, edit: Finish, who: str) -> Change:
    region = edit.region
    _require_place(corrected, t=region.t or 0, z=region.z or 0)
    if region.outline is not None and not inside_outline(region.outline, corrected.shape[2:]).inside.any():
        raise RequestError(
            "expected a region with pixels of the image, got one without any",
            field="region.outline",
            hint="give its corners as [x, y] in pixels",
        )
    if region in corrected.regions.values():
        return Change()
    if len(corrected.regions) >= MOST_REGIONS:
        raise RequestError(
            f"expected at most {MOST_REGIONS} finished regions of an image, got one more",
            field="region",
            hint="reopen some, and finish a region that contains them",
        )
    return Change(regions={corrected.regions_made + 1: (None, region)})


def _reopen(corrected: Corrected, edit: Reopen, who: str) -> Change:
    if edit.region not in corrected.regions:
        raise RequestError(
            f"expected the number of a finished region ({_few(sorted(corrected.regions))}), got {edit.region}",
            field="region",
        )
    return Change(regions={edit.region: (corrected.regions[edit.region], None)})


_OPERATIONS: Mapping[type, Callable[[Corrected, Any, str], Change]] = {
    Delete: _delete,
    Add: _add,
    Paint: _paint,
    Merge: _merge,
    Split: _split,
    Classify: _classify,
    CopyPlane: _copy_plane,
    Interpolate: _interpolate,
    Finish: _finish,
    Reopen: _reopen,
}


def _drawn(
    corrected: Corrected,
    patches: Sequence[tuple[int, int, Patch]],
    label: int | None,
    who: str,
    *,
    over: bool,
    class_name: str | None = None,
) -> Change:
    """Return the change that gives pixels of planes to an object, or to a new one without a label.

    Parameters
    ----------
    patches
        Frame, plane and pixels; in order of the planes, each plane once.
    """
    drawn = _next_label(corrected, 1) if label is None else label
    runs = []
    for t, z, patch in patches:
        before = corrected.labels[(t, z, *patch.place)]
        taken = patch.inside if over else patch.inside & (before == 0)
        runs.append(_runs_of(corrected, t, z, patch, before, np.where(taken, np.uint32(drawn), before)))
    pixels = np.concatenate(runs)
    objects = _vanished(corrected, pixels)
    if label is None and len(pixels):
        objects[drawn] = (None, CorrectedObject(made="person", by=who, class_name=class_name))
    return Change(pixels, objects)


def _runs_of(
    corrected: Corrected, t: int, z: int, patch: Patch, before: NDArray[Any], after: NDArray[Any]
) -> NDArray[np.int64]:
    """Return the runs of the changed pixels of a patch."""
    y, x = np.nonzero(before != after)
    _, planes, rows, columns = corrected.shape
    places = (((t * planes + z) * rows) + y + patch.top) * columns + x + patch.left
    return pixel_runs(places, before[y, x], after[y, x], columns)


def _renamed(corrected: Corrected, names: Mapping[int, int]) -> NDArray[np.int64]:
    """Return the runs of the pixels of objects that get other labels."""
    table = np.zeros(corrected.highest + 1, np.bool_)
    table[list(names)] = True
    runs = []
    frame = corrected.labels[0].size
    for t, labels in enumerate(corrected.labels):  # a frame at a time needs less memory
        places = np.flatnonzero(table[labels])
        before = labels.reshape(-1)[places]
        order = np.array(sorted(names), np.int64)
        after = np.array([names[label] for label in order.tolist()], np.int64)[np.searchsorted(order, before)]
        runs.append(pixel_runs(places + t * frame, before, after, corrected.shape[3]))
    return np.concatenate(runs)


def _vanished(
    corrected: Corrected, runs: NDArray[np.int64]
) -> dict[int, tuple[CorrectedObject | None, CorrectedObject | None]]:
    """Return the objects that lose their last pixel."""
    lost: dict[int, int] = {}
    for _, length, before, _ in runs.tolist():
        if before:
            lost[before] = lost.get(before, 0) + length
    counts = corrected.pixels_of(lost) if lost else {}
    return {label: (corrected.objects[label], None) for label, count in lost.items() if counts[label] == count}


def _plane_of(corrected: Corrected, label: int, t: int, z: int) -> NDArray[np.bool_]:
    """Return the pixels of an object in a plane."""
    _require_labels(corrected, [label])
    _require_place(corrected, t=t, z=z)
    mask: NDArray[np.bool_] = corrected.labels[t, z] == label
    if not mask.any():
        raise RequestError(
            f"expected a plane that contains object {label}, got plane {z} of frame {t}, which does not",
            field="from",
            hint="choose a plane where the object is",
        )
    return mask


def _next_label(corrected: Corrected, count: int) -> int:
    if corrected.highest + count > _LAST_LABEL:
        raise RequestError("expected fewer objects: no number is left for a new one", field="label")
    return corrected.highest + 1


def _require_labels(corrected: Corrected, labels: Sequence[int]) -> None:
    unknown = [label for label in labels if label not in corrected.objects]
    if unknown:
        raise RequestError(
            f"expected labels of objects of this image, got {_few(unknown)}, which no object has",
            field="labels",
            hint="read the labels again: another edit may have removed it",
        )


def _require_place(corrected: Corrected, *, t: int, z: int) -> None:
    for name, what, value, length in (("t", "frame", t, corrected.shape[0]), ("z", "plane", z, corrected.shape[1])):
        if value >= length:
            raise RequestError(
                f"expected a {what} from 0 to {length - 1}, got {value}", field=name, hint=f"the image has {length}"
            )


def _few(numbers: Sequence[int]) -> str:
    return (", ".join(map(str, numbers[:5])) + (" …" if len(numbers) > 5 else "")) or "none"

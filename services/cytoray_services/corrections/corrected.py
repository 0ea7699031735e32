"""The corrected labels of an image: its pixels, objects and finished regions after some edits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError
from cytoray_services.corrections.change import Change, CorrectedObject
from cytoray_services.corrections.edits import Edit, Redo, Region, Undo

Labels = NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Recorded:
    """An edit that was made.

    Attributes
    ----------
    edit
        As it was asked for; an undo or redo has the number of its edit.
    who, when
        The person and the time.
    base
        The revision of the labels that the person saw.
    change
        What it changed.
    """

    edit: Edit
    who: str
    when: datetime
    base: int
    change: Change


class Corrected:
    """The labels of an image with the edits that led to them; edits are numbered from 1.

    Parameters
    ----------
    labels
        (T, Z, Y, X) uint32, contiguous, 0 for background; edits write into it.
    objects
        The objects of the labels, by label.
    """

    def __init__(self, labels: Labels, objects: Mapping[int, CorrectedObject]) -> None:
        self.labels = labels
        self.objects = dict(objects)
        self.regions: dict[int, Region] = {}
        self.log: list[Recorded] = []
        self.highest = max(objects, default=0)
        self.regions_made = 0
        # Numbers of edits, in the order in which they came into force, or were undone; and the person who undid each.
        self._in_force: dict[int, None] = {}
        self._undone: dict[int, str] = {}
        self._edits: Counter[int] = Counter()

    @property
    def revision(self) -> int:
        """The number of edits."""
        return len(self.log)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Frames, planes, rows and columns."""
        frames, planes, rows, columns = self.labels.shape
        return frames, planes, rows, columns

    def in_force(self, number: int) -> bool:
        """Whether an edit, which is no undo or redo, was not undone."""
        return number in self._in_force

    def edited(self, label: int) -> bool:
        """Whether edits in force changed an object after it was made."""
        made = self.objects[label].made == "person"
        return self._edits[label] > made

    def record(self, recorded: Recorded, *, drawn: bool = True) -> None:
        """Add an edit with its change.

        Parameters
        ----------
        drawn
            Whether its pixels are written into the labels; False if they are there already.
        """
        change, number = recorded.change, self.revision + 1
        if drawn:
            change.apply(self.labels)
        for label, (_, after) in change.objects.items():
            if after is None:
                self.objects.pop(label, None)
            else:
                self.objects[label] = after
        for region, (_, new) in change.regions.items():
            if new is None:
                self.regions.pop(region, None)
            else:
                self.regions[region] = new
        self.highest = max(self.highest, max(change.touched, default=0))
        self.regions_made = max(self.regions_made, max(change.regions, default=0))
        self.log.append(recorded)
        edit = recorded.edit
        if isinstance(edit, Undo | Redo):
            assert edit.edit is not None  # noqa: S101 - what is recorded has a number
            self._toggle(edit.edit, recorded.who, undone=isinstance(edit, Undo))
        else:
            self._in_force[number] = None
            self._edits.update(change.touched)

    def _toggle(self, number: int, who: str, *, undone: bool) -> None:
        touched = self.log[number - 1].change.touched
        if undone:
            del self._in_force[number]
            self._undone[number] = who
            self._edits.subtract(touched)
        else:
            del self._undone[number]
            self._in_force[number] = None
            self._edits.update(touched)

    def pixels_of(self, labels: Collection[int]) -> dict[int, int]:
        """Count the pixels of some objects."""
        chosen = np.array(sorted(labels), np.int64)
        table = np.zeros(max(self.highest, int(chosen.max(initial=0))) + 1, np.bool_)
        table[chosen] = True
        counts = np.zeros(len(chosen), np.int64)
        for frame in self.labels:  # a frame at a time needs less memory
            found = np.searchsorted(chosen, frame[table[frame]])
            counts += np.bincount(found, minlength=len(chosen))
        return dict(zip(chosen.tolist(), counts.tolist(), strict=True))

    def undoing(self, edit: Undo | Redo, who: str) -> tuple[Undo | Redo, Change]:
        """Return an undo or redo with the number of its edit, and its change.

        Raises
        ------
        RequestError
            There is no such edit, it is (not) undone already, or what it changed was changed again since.
        """
        undo = isinstance(edit, Undo)
        number = self._chosen(edit, who)
        recorded = self.log[number - 1]
        change = recorded.change.reversed() if undo else recorded.change
        after = self._later(number) if undo else []
        if any(self.log[other - 1].change.meets(change) for other in after) or not self._fits(change):
            raise RequestError(
                f"expected that nothing changed the same since edit {number}, but {self._in_the_way(number)} did",
                field="edit",
                hint="undo the later edits first" if undo else "undo the edits that were made since first",
            )
        return (Undo(edit=number) if undo else Redo(edit=number)), change

    def _chosen(self, edit: Undo | Redo, who: str) -> int:
        undo = isinstance(edit, Undo)
        if edit.edit is None:
            if undo:
                own = (number for number in reversed(self._in_force) if self.log[number - 1].who == who)
            else:
                own = (number for number, by in reversed(self._undone.items()) if by == who)
            number = next(own, None)
            if number is None:
                raise RequestError(
                    f"expected an edit of {who} to {'undo' if undo else 'do again'}, there is none",
                    field="edit",
                    hint="give the number of the edit",
                )
            return number
        number = edit.edit
        if number > self.revision or not self._is_plain(number):
            raise RequestError(
                f"expected the number of an edit, 1 to {self.revision}, that is no undo or redo, got {number}",
                field="edit",
                hint="the list of edits has all numbers",
            )
        if self.in_force(number) != undo:
            raise RequestError(
                f"expected an edit that is {'in force' if undo else 'undone'}, got edit {number}, which is "
                f"{'undone' if undo else 'in force'}",
                field="edit",
            )
        return number

    def _is_plain(self, number: int) -> bool:
        return not isinstance(self.log[number - 1].edit, Undo | Redo)

    def _fits(self, change: Change) -> bool:
        """Whether everything has its value before a change, and every object has pixels after it."""
        if not (
            change.fits(self.labels)
            and all(self.objects.get(label) == before for label, (before, _) in change.objects.items())
            and all(self.regions.get(region) == before for region, (before, _) in change.regions.items())
        ):
            return False
        if not len(change.pixels):
            return True
        counts = Counter(self.pixels_of(change.touched))
        for _, length, before, after in change.pixels.tolist():
            counts[before] -= length
            counts[after] += length
        there = self.objects.keys() | {label for label, (_, after) in change.objects.items() if after is not None}
        there -= {label for label, (_, after) in change.objects.items() if after is None}
        return all((counts[label] > 0) == (label in there) for label in change.touched)

    def _in_the_way(self, number: int) -> str:
        """Name the edit that came into force last among those of the same pixels, or else of the same objects."""
        change = self.log[number - 1].change
        others = {other: self.log[other - 1].change for other in reversed(self._in_force) if other != number}
        meeting = (other for other, later in others.items() if later.meets(change))
        touching = (other for other, later in others.items() if later.touched & change.touched)
        found = next(meeting, None) or next(touching, None)
        return "another edit" if found is None else f"edit {found}"

    def _later(self, number: int) -> list[int]:
        """Return the edits that came into force after an edit."""
        order = list(self._in_force)
        return order[order.index(number) + 1 :]


def replayed(
    labels: Labels, objects: Mapping[int, CorrectedObject], log: Sequence[Recorded], drawn: int = 0
) -> Corrected:
    """Return the labels after all edits of a log.

    Parameters
    ----------
    labels
        Before the first edit, or as they were written after `drawn` edits or any later one.
    objects
        Before the first edit.
    drawn
        The number of edits whose pixels `labels` contain.
    """
    corrected = Corrected(labels, objects)
    for number, recorded in enumerate(log):
        corrected.record(recorded, drawn=number >= drawn)
    return corrected

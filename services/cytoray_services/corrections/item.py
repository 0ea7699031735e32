"""One item of a data set on disk: an image, its labels, and the log of the edits that were made on them.

In the folder of the data set:

=======================  =========================================================================================
``images/ID.tif``        the image as it was sent
``masks/ID.tif``         the labels now; what training reads
``known/ID.tif``         the pixels whose labels are known: those of the finished regions
``items/ID/item.json``   the record of the item; written once
``items/ID/answer``      the labels as they were sent, if there were any; written once
``items/ID/objects.json`` the objects of these labels; written once
``items/ID/edits.jsonl`` a line for every request with edits, on disk before it is confirmed
``items/ID/state.json``  what was written last
=======================  =========================================================================================

The log decides. ``masks``, ``known`` and ``state.json`` are written after it, in this order; if a process is killed in
between, the next one that opens the item writes them again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from cytoray_analysis.errors import ConflictError, DatasetNotFoundError, PlatformError, RequestError
from cytoray_analysis.files import append_line, write_whole
from cytoray_services.content_hash import file_digest
from cytoray_services.corrections.applying import apply_edit
from cytoray_services.corrections.certainty import certainty_of
from cytoray_services.corrections.change import Change, CorrectedObject
from cytoray_services.corrections.corrected import Corrected, Recorded, replayed
from cytoray_services.corrections.edits import Edit, Redo, Undo
from cytoray_services.corrections.known import known_pixels
from cytoray_services.corrections.label_files import STACK, Form, map_labels, write_known, write_labels
from cytoray_services.corrections.label_tiles import TILE, levels_of
from cytoray_services.corrections.records import (
    BaseObjects,
    ItemRecord,
    ItemState,
    ItemStatus,
    LoggedEdit,
    RecordedEdit,
)
from cytoray_services.locks import locked
from cytoray_services.records import reading

_LINE: TypeAdapter[list[LoggedEdit]] = TypeAdapter(list[LoggedEdit])


MOST_LOG = 2**28
"""Bytes of the edits of an item, which each request with edits reads."""


class StaleRevisionError(ConflictError):
    """Edits on a revision that is not the newest.

    Attributes
    ----------
    revision
        The newest one.
    theirs
        The edits that were made since.
    """

    revision = 0
    theirs: tuple[RecordedEdit, ...] = ()


class ItemFolder:
    """The files of one item.

    Parameters
    ----------
    dataset
        The folder of the data set.
    item
        ID of the item.
    lock
        The lock of those who write to it; outside of the data set, so that a removed one does not come back.
    """

    def __init__(self, dataset: Path, item: str, lock: Path) -> None:
        self.id = item
        self.path = dataset / "items" / item
        self.lock = lock
        self.masks, self.known = (dataset / name / f"{item}.tif" for name in ("masks", "known"))
        self._log = self.path / "edits.jsonl"
        self._state = self.path / "state.json"

    def record(self) -> ItemRecord:
        """Return what was recorded when the item was added.

        Raises
        ------
        DatasetNotFoundError
            The item is not there any more.
        """
        path = self.path / "item.json"
        if not path.is_file():
            raise DatasetNotFoundError(f"there is no item {self.id!r}", field="item")
        with reading(path, "the record of an item"):
            return ItemRecord.model_validate_json(path.read_bytes())

    def state(self) -> ItemState:
        """Return what was written last, after writing what a killed process did not write."""
        state = self._newest_state()
        if state is not None:
            return state
        with locked(self.lock):
            form = self._form(self.record())
            state = self._newest_state()  # another process may have written it
            if state is not None:
                return state
            log, size = self._read_log()
            before = self._read_state()
            try:
                os.truncate(self._log, size)
                return self._write(self._current(form, log, before), form, before)
            except OSError as cause:
                raise PlatformError(
                    f"the labels of {self.id} cannot be written: {cause.strerror}", hint="free some disk space"
                ) from cause

    def status(self) -> ItemStatus:
        """Describe the item."""
        record, state = self.record(), self.state()
        frames, planes, height, width = self._form(record).stack
        return ItemStatus(
            id=record.id,
            name=record.name,
            split=record.split,
            group=record.group,
            revision=state.revision,
            axes=dict(zip(STACK, (frames, planes, height, width), strict=True)),
            model=record.model,
            finished=state.regions,
            objects=state.objects,
            certainty=state.certainty,
            least_certain=state.least_certain,
            levels=levels_of(width, height),
            tile=TILE,
            added=record.added,
            by=record.by,
        )

    def stack(self) -> tuple[int, ...]:
        """Return the lengths of the labels along T, Z, Y and X."""
        return self._form(self.record()).stack

    def labels(self) -> NDArray[np.uint32]:
        """Return the labels now, (T, Z, Y, X); they are read from the file where they are used."""
        return map_labels(self.masks, self._form(self.record()))

    def corrected(self) -> Corrected:
        """Return the labels with their objects, regions and edits; they cannot be edited further."""
        while True:
            revision = self.state().revision
            log, _ = self._read_log()
            labels = self.labels()
            # The labels are written before the state: they belong to it if it is still the newest.
            if self.state().revision == revision:
                return replayed(labels, self._base(), log[:revision], drawn=revision)

    def edits(self, after: int = 0) -> tuple[RecordedEdit, ...]:
        """Return the edits after a revision."""
        return _recorded(self.corrected(), after)

    def edit(self, edits: Sequence[Edit], *, base: int, who: str) -> tuple[int, Change]:
        """Make edits, all or none; when this returns, they are on disk.

        Parameters
        ----------
        base
            The revision that the person saw.
        who
            The person.

        Returns
        -------
        revision
            The new revision.
        change
            The sorted runs of all edits; an overlap of two edits is in both.

        Raises
        ------
        StaleRevisionError
            There are newer edits; nothing is changed.
        RequestError
            An edit cannot be made; its index is in the field, and nothing is changed.
        PlatformError
            The edits, or the labels after them, cannot be written.
        """
        with locked(self.lock):
            form = self._form(self.record())
            log, _ = self._read_log()
            state = self._read_state()
            corrected = self._current(form, log, state)
            _require_newest(corrected, base)
            if self._log.stat().st_size > MOST_LOG:
                raise RequestError(
                    f"expected at most {MOST_LOG >> 20} MB of edits of an item, got more",
                    hint="add the image with its present labels to another data set",
                )
            changes = [_made(corrected, index, edit, base, who) for index, edit in enumerate(edits)]
            line = _LINE.dump_json([_logged(one) for one in corrected.log[base:]], by_alias=True).decode()
            try:
                append_line(self._log, line, durable=True)
            except OSError as cause:
                raise PlatformError(
                    f"the edits cannot be saved, and were not made: {cause.strerror}", hint="free some disk space"
                ) from cause
            try:
                self._write(corrected, form, state)
            except OSError as cause:
                raise PlatformError(
                    f"the edits are saved as revision {corrected.revision}, but the labels after them cannot be "
                    f"written: {cause.strerror}",
                    hint="free some disk space; the labels are written when the item is opened next",
                ) from cause
            return corrected.revision, _together(changes)

    def _form(self, record: ItemRecord) -> Form:
        return Form(record.axes, record.shape)

    def _read_state(self) -> ItemState | None:
        if not self._state.exists():
            return None
        with reading(self._state, "the state of an item", hint="remove it; it is made again from the log"):
            return ItemState.model_validate_json(self._state.read_bytes())

    def _newest_state(self) -> ItemState | None:
        """Return the state if it is as new as the log."""
        state = self._read_state()
        try:
            size = self._log.stat().st_size
        except FileNotFoundError:
            raise DatasetNotFoundError(f"there is no item {self.id!r}", field="item") from None
        return state if state is not None and state.log_bytes == size else None

    def _base(self) -> dict[int, CorrectedObject]:
        path = self.path / "objects.json"
        with reading(path, "the objects of an item"):
            return BaseObjects.model_validate_json(path.read_bytes()).objects

    def _read_log(self) -> tuple[list[Recorded], int]:
        """Return all edits, and the length of the log without an incomplete last line of a killed process."""
        with reading(self._log, "the log of an item"):
            content = self._log.read_bytes()
        size = content.rfind(b"\n") + 1
        found = []
        for number, line in enumerate(content[:size].split(b"\n")[:-1], 1):
            with reading(f"{self._log}, line {number}", "edits"):
                for one in _LINE.validate_json(line):
                    found.append(Recorded(one.edit, one.who, one.when, one.base, Change.of(one.change)))
        return found, size

    def _current(self, form: Form, log: Sequence[Recorded], state: ItemState | None) -> Corrected:
        """Return the labels after all edits of the log, in memory."""
        drawn = 0 if state is None else state.revision
        return replayed(np.array(map_labels(self.masks, form)), self._base(), log, drawn)

    def _write(self, corrected: Corrected, form: Form, before: ItemState | None) -> ItemState:
        """Write what follows from the log."""
        write_labels(self.masks, corrected.labels, form)
        if before is None or before.regions or corrected.regions:
            write_known(self.known, known_pixels(corrected.labels, corrected.regions.values()), form)
        certainty, least = certainty_of(corrected)
        state = ItemState(
            revision=corrected.revision,
            log_bytes=self._log.stat().st_size,
            masks=file_digest(self.masks),
            known=file_digest(self.known),
            objects=len(corrected.objects),
            certainty=certainty,
            least_certain=least,
            regions=corrected.regions,
        )
        write_whole(self._state, state.model_dump_json(), private=True)
        return state


def _require_newest(corrected: Corrected, base: int) -> None:
    if base > corrected.revision:
        raise RequestError(
            f"expected a revision from 0 to {corrected.revision}, got {base}",
            field="If-Match",
            hint="send the revision of the labels that are edited, from ETag",
        )
    if base < corrected.revision:
        theirs = _recorded(corrected, base)
        error = StaleRevisionError(
            f"expected edits on revision {corrected.revision}, got edits on {base}: "
            f"{', '.join(dict.fromkeys(one.who for one in theirs))} made {len(theirs)} since",
            field="If-Match",
            hint="look at them, and send the edits again with the new revision if they still apply",
        )
        error.revision, error.theirs = corrected.revision, theirs
        raise error


def _made(corrected: Corrected, index: int, edit: Edit, base: int, who: str) -> Change:
    try:
        asked, change = apply_edit(corrected, edit, who)
    except RequestError as error:
        field = f"edits.{index}" + (f".{error.field}" if error.field else "")
        raise RequestError(error.message, field=field, hint=error.hint) from error
    corrected.record(Recorded(asked, who, datetime.now(UTC), base, change))
    return change


def _logged(recorded: Recorded) -> LoggedEdit:
    return LoggedEdit(
        edit=recorded.edit, who=recorded.who, when=recorded.when, base=recorded.base, change=recorded.change.stored()
    )


def _recorded(corrected: Corrected, after: int) -> tuple[RecordedEdit, ...]:
    return tuple(
        RecordedEdit(
            number=number,
            edit=one.edit,
            who=one.who,
            when=one.when,
            base=one.base,
            objects=tuple(sorted(one.change.touched)),
            in_force=None if isinstance(one.edit, Undo | Redo) else corrected.in_force(number),
        )
        for number, one in enumerate(corrected.log[after:], start=after + 1)
    )


def _together(changes: Sequence[Change]) -> Change:
    objects = {label: pair for change in changes for label, pair in change.objects.items()}
    return Change(np.concatenate([change.pixels for change in changes]), objects)

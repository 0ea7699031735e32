"""One data set on disk: a folder that :func:`cytoray_services.datasets.open_dataset` reads.

======================  ==========================================================================================
``dataset.json``        who made it, and when; written once
``manifest.csv``        image, mask, known, split and group of each item; made from the items
``images`` …            the files of the items: see :mod:`cytoray_services.corrections.item`
======================  ==========================================================================================

A split is given to a group once, when its first item is added: the second group is ``val``, and then every fifth, so
that a small set has both. The group of an item never changes, so an image that trained never validates. The same
file cannot be added twice.
"""

from __future__ import annotations

import csv
import io
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import ConflictError, DatasetNotFoundError, PlatformError, RequestError
from cytoray_analysis.files import draft_name, replace_whole, whole_path, write_whole
from cytoray_services.content_hash import file_digest, rows_digest
from cytoray_services.corrections.change import CorrectedObject
from cytoray_services.corrections.item import ItemFolder
from cytoray_services.corrections.label_files import Form, open_given, read_given_labels, write_known, write_labels
from cytoray_services.corrections.records import BaseObjects, DataSetRecord, DataSetStatus, GivenObject, ItemRecord
from cytoray_services.locks import locked
from cytoray_services.records import reading
from cytoray_services.tokens.access import Caller

_ITEM = re.compile(r"item-[0-9a-f]{16}")
_SUFFIX = re.compile(r"(\.ome)?\.[a-z0-9]{1,5}$")
_COLUMNS = ("image", "mask", "known", "split", "group")
_VALIDATES_OF = 5  # one of so many groups validates
MOST_ITEMS = 10_000


class DatasetFolder:
    """The files of one data set.

    Parameters
    ----------
    path
        Its folder.
    locks
        The folder of its locks, which stays when the data set is removed.
    """

    def __init__(self, path: Path, locks: Path) -> None:
        self.path = path
        self._locks = locks

    def record(self) -> DataSetRecord:
        """Return who made it, and when.

        Raises
        ------
        DatasetNotFoundError
            It is not there any more.
        """
        path = self.path / "dataset.json"
        if not path.is_file():
            raise DatasetNotFoundError(f"there is no data set {self.path.name!r}", field="name")
        with reading(path, "the record of a data set"):
            return DataSetRecord.model_validate_json(path.read_bytes())

    def items(self) -> list[tuple[ItemFolder, ItemRecord]]:
        """Return all items in the order in which they were added."""
        folder = self.path / "items"
        found = [self._item(path.name) for path in folder.iterdir() if _ITEM.fullmatch(path.name)]
        return sorted(((item, item.record()) for item in found), key=lambda one: one[1].number)

    def item(self, item: str) -> ItemFolder:
        """Return an item.

        Raises
        ------
        DatasetNotFoundError
            There is none of that ID.
        """
        found = self._item(item)
        if not _ITEM.fullmatch(item) or not found.path.is_dir():
            raise DatasetNotFoundError(
                f"there is no item {item[:64]!r}", field="item", hint="GET /datasets/{name}/items lists the items"
            )
        return found

    def status(self) -> DataSetStatus:
        """Describe the data set, after writing what killed processes did not write."""
        record, items = self.record(), self.items()
        states = [item.state() for item, _ in items]
        if not self._has_manifest([one for _, one in items]):
            with locked(self._locks / "items"):  # another process may have added an item meanwhile
                self._require_manifest([one for _, one in self.items()])
        rows = [
            [one.image, one.digest, state.masks, one.split, state.known]
            for (_, one), state in zip(items, states, strict=True)
        ]
        return DataSetStatus(
            name=record.name,
            owner=record.owner,
            team=record.team,
            created=record.created,
            items=len(items),
            finished=sum(bool(state.regions) for state in states),
            splits=Counter(one.split for _, one in items),
            version=rows_digest(rows) if rows else None,
        )

    def next_item(self) -> str | None:
        """Return the unfinished item whose objects are least certain; None if all have a finished region.

        Items without a confidence follow after the others, in the order in which they were added.
        """
        waiting = []
        for item, record in self.items():
            state = item.state()
            if not state.regions:
                certainty = state.certainty
                waiting.append((certainty is None, certainty or 0.0, record.number, item.id))
        return min(waiting)[3] if waiting else None

    def add_item(
        self,
        name: str,
        image: Path,
        labels: Path | None = None,
        objects: Sequence[GivenObject] = (),
        *,
        caller: Caller,
        model: Mapping[str, Any] | None = None,
        group: str | None = None,
    ) -> ItemFolder:
        """Copy an image with its labels into the data set.

        Parameters
        ----------
        name
            The name of the file, for display.
        image
            An image file (or OME-Zarr folder).
        labels
            A label image of the same size; None for no objects.
        objects
            Confidence and class of objects of the labels, by label.
        model
            The model that gave the labels, as in answers; None if a person did.
        group
            What is kept on one side of the split, such as the recording of a frame or plane; by default the image
            alone.

        Raises
        ------
        ImageError
            A file cannot be read, is too large, or the sizes differ.
        ConflictError
            The data set contains the same file.
        RequestError
            The objects or the group are not valid.
        PlatformError
            The disk is full.
        """
        _, form = open_given(image, name)
        given = (
            np.zeros(form.stack, np.uint32) if labels is None else read_given_labels(labels, f"masks of {name}", form)
        )
        base = _base_objects(given, objects, caller, of_model=model is not None)
        group = _checked_group(group)
        digest = file_digest(image)
        with locked(self._locks / "items"):
            self.record()
            known = [record for _, record in self.items()]
            twin = next((one for one in known if one.digest == digest), None)
            if twin is not None:
                raise ConflictError(
                    f"the data set contains the same image already, as {twin.name} ({twin.id})",
                    field="image",
                    hint="correct that item",
                )
            if len(known) >= MOST_ITEMS:
                raise RequestError(f"expected at most {MOST_ITEMS} items, got one more", hint="make another data set")
            new = f"item-{secrets.token_hex(8)}"
            suffix = _SUFFIX.search(name.lower())
            record = ItemRecord(
                id=new,
                number=1 + max((one.number for one in known), default=0),
                name=name,
                image=f"images/{new}{suffix.group() if suffix else ''}",
                digest=digest,
                axes=form.axes,
                shape=form.shape,
                split=_split_of(group, known),
                group=group or new,
                model=model,
                added=datetime.now(UTC),
                by=caller.name,
            )
            try:
                self._write_item(record, image, labels, given, base)
            except OSError as cause:
                item = self._item(new)
                for path in (self.path / record.image, item.masks, item.known):
                    path.unlink(missing_ok=True)
                raise PlatformError(
                    f"the item cannot be saved: {cause.strerror}", hint="free some disk space"
                ) from cause
            self._require_manifest([*known, record])
        return self._item(new)

    def delete(self, confirm: str | None = None) -> None:
        """Remove the data set.

        Parameters
        ----------
        confirm
            Its name, if it has items.

        Raises
        ------
        RequestError
            It has items, and the name is not confirmed.
        """
        with locked(self._locks / "items"), ExitStack() as writers:
            self.record()
            items = self.items()
            if items and confirm != self.path.name:
                raise RequestError(
                    f"expected ?confirm={self.path.name} for a data set with {len(items)} items",
                    field="confirm",
                    hint="confirm the name: items, labels and edits are lost",
                )
            for item, _ in items:
                writers.enter_context(locked(item.lock))
            removed = draft_name(self.path)
            self.path.rename(removed)
            shutil.rmtree(removed, ignore_errors=True)

    def _item(self, item: str) -> ItemFolder:
        return ItemFolder(self.path, item, self._locks / item)

    def _write_item(
        self, record: ItemRecord, image: Path, labels: Path | None, given: NDArray[np.uint32], base: BaseObjects
    ) -> None:
        """Write all files of an item; it exists once its folder has its name."""
        item, form = self._item(record.id), Form(record.axes, record.shape)
        _copy(image, self.path / record.image)
        write_labels(item.masks, given, form)
        write_known(item.known, np.zeros(form.stack, np.bool_), form)
        draft = draft_name(item.path)
        try:
            draft.mkdir()
            if labels is not None:
                _copy(labels, draft / "answer")
            write_whole(draft / "objects.json", base.model_dump_json(), private=True)
            write_whole(draft / "edits.jsonl", b"", private=True)
            write_whole(draft / "item.json", record.model_dump_json(), private=True)
            replace_whole(draft, item.path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        item.state()

    def _has_manifest(self, records: Sequence[ItemRecord]) -> bool:
        """Whether the manifest lists exactly these items."""
        path = self.path / "manifest.csv"
        return path.exists() and path.read_text(encoding="utf-8") == _manifest(records)

    def _require_manifest(self, records: Sequence[ItemRecord]) -> None:
        """Write the manifest if it does not list exactly these items; under the lock of the items."""
        try:
            if not self._has_manifest(records):
                write_whole(self.path / "manifest.csv", _manifest(records))
        except OSError as cause:
            raise PlatformError(
                f"the manifest of {self.path.name} cannot be written: {cause.strerror}",
                hint="free some disk space; it is written when the data set is opened next",
            ) from cause


def _manifest(records: Sequence[ItemRecord]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for one in records:
        table.writerow((one.image, f"masks/{one.id}.tif", f"known/{one.id}.tif", one.split, one.group))
    return text.getvalue()


def _copy(source: Path, target: Path) -> None:
    with whole_path(target) as draft:
        if source.is_dir():
            shutil.copytree(source, draft)
        else:
            shutil.copyfile(source, draft)


def _split_of(group: str | None, known: Sequence[ItemRecord]) -> Literal["train", "val"]:
    splits = {one.group: one.split for one in known}
    if group in splits:
        return splits[group]
    return "val" if len(splits) % _VALIDATES_OF == 1 else "train"


def _checked_group(group: str | None) -> str | None:
    group = (group or "").strip()
    if len(group) > 128 or not group.isprintable():
        raise RequestError(
            f"expected a group of at most 128 printable characters, got {group[:40]!r}",
            field="group",
            hint="such as the name of the recording",
        )
    return group or None


def _base_objects(
    labels: NDArray[np.uint32], objects: Sequence[GivenObject], caller: Caller, *, of_model: bool
) -> BaseObjects:
    there = np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1
    described = {one.label: one for one in objects}
    unknown = described.keys() - set(there.tolist())
    if unknown:
        raise RequestError(
            f"expected objects of the labels, got {min(unknown)}, which no pixel has",
            field="objects",
            hint="send the labels and the objects of one answer",
        )
    found = {}
    for label in there.tolist():
        one = described.get(label)
        found[label] = CorrectedObject(
            made="model" if of_model else "person",
            by=None if of_model else caller.name,
            class_name=one.class_name if one else None,
            confidence=one.confidence if one else None,
        )
    return BaseObjects(objects=found)

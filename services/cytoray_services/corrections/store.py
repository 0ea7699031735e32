"""Data sets of a service on disk: one folder each, which only those see who may."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cytoray_analysis.errors import ConflictError, DatasetNotFoundError, OverloadedError, RequestError
from cytoray_analysis.files import draft_name, folder_bytes, replace_whole, write_whole
from cytoray_services.corrections.dataset_folder import DatasetFolder
from cytoray_services.corrections.records import DataSetRecord
from cytoray_services.locks import locked
from cytoray_services.tokens.access import Caller

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_DATASETS = 1_000
"""Of one owner."""


class DatasetStore:
    """All data sets of a service, as folders of one folder.

    Parameters
    ----------
    folder
        The folder.
    owner_megabytes
        Disk space of all data sets of one owner.
    """

    def __init__(self, folder: Path, owner_megabytes: int = 65_536) -> None:
        self.folder = folder
        self._most = owner_megabytes * 2**20
        self._locks = folder / ".locks"

    def create(self, name: str, caller: Caller, team: str | None = None) -> DatasetFolder:
        """Make an empty data set.

        Raises
        ------
        RequestError
            The name is not valid, or there are too many data sets.
        ConflictError
            There is one of that name, perhaps of another owner.
        ForbiddenError
            The token does not allow that team.
        """
        if not _NAME.fullmatch(name):
            raise RequestError(
                f"expected a name of up to 64 letters, digits, '.', '_' and '-', got {name[:80]!r}",
                field="name",
                hint="such as bone-marrow.2",
            )
        record = DataSetRecord(name=name, owner=caller.name, team=caller.team_for(team), created=datetime.now(UTC))
        found = self._folder(name)
        with locked(self._locks / ".all"):
            if found.path.exists():
                raise ConflictError(f"the name {name!r} is taken", field="name", hint="choose another name")
            if len(self._of(caller.name)) >= MOST_DATASETS:
                raise RequestError(
                    f"expected at most {MOST_DATASETS} data sets of {caller.name}, got one more", hint="remove some"
                )
            draft = draft_name(found.path)
            try:
                (draft / "items").mkdir(parents=True, mode=0o700)
                write_whole(draft / "dataset.json", record.model_dump_json(), private=True)
                draft.chmod(0o700)
                replace_whole(draft, found.path)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        return found

    def find(self, name: str, caller: Caller) -> DatasetFolder:
        """Return a data set.

        Raises
        ------
        DatasetNotFoundError
            There is none of that name that the caller may see.
        """
        found = self._folder(name)
        if _NAME.fullmatch(name):
            with suppress(DatasetNotFoundError):
                record = found.record()
                if caller.sees(record.owner, record.team):
                    return found
        raise DatasetNotFoundError(
            f"there is no data set {name[:64]!r}", field="name", hint="GET /datasets lists the data sets"
        )

    def require_room(self, dataset: DatasetFolder, size: int) -> None:
        """Check that there is room for an item in a data set.

        Parameters
        ----------
        size
            Bytes of its image; its labels take about as much.

        Raises
        ------
        OverloadedError
            All data sets of the owner would take too much disk space.
        """
        owner = dataset.record().owner
        total = 2 * size + sum(folder_bytes(one.path) for one in self._of(owner))
        if total > self._most:
            raise OverloadedError(
                f"expected the data sets of {owner} to take at most {self._most >> 20} MB of disk space, got "
                f"{total >> 20} MB with this item",
                hint="remove data sets that are not needed, or ask the operator for more space",
            )

    def seen_by(self, caller: Caller) -> list[DatasetFolder]:
        """Return the data sets that a caller may see, newest first."""
        found = []
        for name in self._names():
            with suppress(DatasetNotFoundError):
                folder = self._folder(name)
                record = folder.record()
                if caller.sees(record.owner, record.team):
                    found.append((record.created, name, folder))
        return [folder for _, _, folder in sorted(found, key=lambda one: one[:2], reverse=True)]

    def _of(self, owner: str) -> list[DatasetFolder]:
        found = []
        for name in self._names():
            with suppress(DatasetNotFoundError):
                if self._folder(name).record().owner == owner:
                    found.append(self._folder(name))
        return found

    def _names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def _folder(self, name: str) -> DatasetFolder:
        return DatasetFolder(self.folder / name, self._locks / name)

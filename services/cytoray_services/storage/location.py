"""The operations on a file, folder or OME-Zarr of a URI, for every storage.

:func:`cytoray_services.storage.locate.locate` returns the location of a URI. Permissions are checked there, and again
at each use, because a symbolic link may have been created in between.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from cytoray_analysis.errors import CytorayError, MissingFileError, PlatformError, RequestError
from cytoray_analysis.images import Image, Limits, read_image, read_levels, read_zarr
from cytoray_analysis.images.archive import ZARR_FILES
from cytoray_analysis.images.ome_zarr import places_in
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_analysis.uris import without_secrets
from cytoray_services.storage.allowed import Allowed
from cytoray_services.storage.downloads import uncounted


@dataclass(frozen=True)
class StorageLocation(ABC):
    """One file, folder or OME-Zarr of a URI.

    Every method except :meth:`joined` raises :class:`PlatformError` if the store does not answer within seconds, and
    :class:`ForbiddenError` if the location is not allowed.

    Attributes
    ----------
    uri
        The URI.
    allowed
        The allowed locations; also for all locations below.
    name
        The last part of the path; for the fields of a plate, their path in it, such as ``A/1/0``.
    """

    gives_copies: ClassVar[bool] = True
    """Whether :meth:`local` yields a temporary copy."""
    uri: str
    allowed: Allowed
    name: str

    def __str__(self) -> str:
        """Return the URI for messages."""
        return without_secrets(self.uri)

    @abstractmethod
    def check(self) -> None:
        """Raise :class:`ForbiddenError` if the location is not allowed."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether a file or folder exists."""

    @abstractmethod
    def is_folder(self) -> bool:
        """Whether it is a folder, or a prefix with objects below it; web addresses never are."""

    @abstractmethod
    def read_bytes(self, count: Callable[[int], None] = uncounted) -> bytes:
        """Return the bytes of a file, and count them as they arrive.

        Raises
        ------
        MissingFileError
            It does not exist.
        ImageTooLargeError
            It exceeds the size limit.
        """

    @abstractmethod
    def write_bytes(self, body: bytes) -> None:
        """Write a file in one step; it is durable after :meth:`settle`."""

    @abstractmethod
    def settle(self) -> None:
        """Wait until all writes here or below are durable."""

    @abstractmethod
    def delete(self) -> None:
        """Remove a file, or a folder with its content, if it exists."""

    @abstractmethod
    def zarr_store(self, *, writing: bool) -> Any:
        """Return the zarr store of an OME-Zarr that is read or written chunk by chunk."""

    @abstractmethod
    def _names(self) -> list[str]:
        """Return the names directly below, sorted."""

    def joined(self, name: str) -> StorageLocation:
        """Return a location below this one.

        Parameters
        ----------
        name
            One name, or several with ``/`` between them.

        Raises
        ------
        RequestError
            It is empty or absolute, or contains '..'.
        """
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
            raise RequestError(f"expected a name below {self}, got {name!r}", hint="remove '..' and empty names")
        return replace(self, uri=self._below(name), name=parts[-1])

    def is_zarr(self) -> bool:
        """Whether it is an OME-Zarr; only web addresses with ``.zarr`` are checked."""
        return any(self.joined(name).exists() for name in ZARR_FILES)

    def children(self) -> list[StorageLocation]:
        """Return the locations directly below a folder, or the fields of a plate, sorted, without hidden files.

        Web addresses have none, except plates.
        """
        if self.is_zarr():
            return [replace(self.joined(path), name=path) for path in sorted(self._fields())]
        return [self.joined(name) for name in self._names() if not name.startswith(".")]

    @abstractmethod
    def local(self) -> AbstractContextManager[Path]:
        """Yield a local path: that of the file or folder, or of a temporary copy."""

    def open_image(self, limits: Limits, selection: Selection = EVERYTHING, *, labels: bool = False) -> Image:
        """Open an image: an OME-Zarr chunk by chunk from any storage, another file as a copy with its pixels loaded.

        Files of this machine are decoded lazily. They must not refer to other files. The size limit of a file applies
        to each object and each decoded chunk of an OME-Zarr, and its metadata have at most 4 MiB.

        Parameters
        ----------
        limits, selection, labels
            As for :func:`cytoray_analysis.images.read_image`.

        Raises
        ------
        CytorayError
            As from :func:`cytoray_analysis.images.read_image`.
        """
        self.check()
        if self.is_zarr():
            limits = replace(limits, chunk_bytes=self.allowed.largest_file)
            with self._reported():
                store = self.zarr_store(writing=False)
                return read_zarr(store, limits=limits, name=str(self), alone=True, selection=selection, labels=labels)
        with self.local() as path:
            image = read_image(path, limits=limits, name=str(self), alone=True, selection=selection, labels=labels)
            return replace(image, data=image.read()) if self.gives_copies else image

    def open_levels(self, limits: Limits, selection: Selection = EVERYTHING) -> tuple[Image, ...]:
        """Open all levels of an OME-Zarr, the largest first; see :meth:`open_image`."""
        self.check()
        limits = replace(limits, chunk_bytes=self.allowed.largest_file)
        with self._reported():
            store = self.zarr_store(writing=False)
            return read_levels(store, limits=limits, name=str(self), alone=True, selection=selection)

    def _fields(self) -> list[str]:
        """Return the paths of the fields of an OME-Zarr plate; empty for other stores."""
        attributes = self._attributes()
        return places_in(attributes, lambda well: self.joined(well)._attributes(), ()) if "plate" in attributes else []

    def _attributes(self) -> dict[str, Any]:
        import zarr

        with self._reported():
            attributes = dict(zarr.open_group(self.zarr_store(writing=False), mode="r").attrs)
        inner = attributes.get("ome", attributes)
        return inner if isinstance(inner, dict) else {}

    def _below(self, name: str) -> str:
        """Return the URI of a name below this location."""
        parts = urlsplit(self.uri)
        return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}").geturl()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Convert the errors of a store."""
        try:
            yield
        except CytorayError:
            raise
        except FileNotFoundError as error:
            raise MissingFileError(f"{self} does not exist", hint="check the URI") from error
        except PermissionError as error:
            raise PlatformError(
                f"the service itself has no permission for {self}", hint="ask the operator to grant it"
            ) from error
        except (OSError, TimeoutError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise PlatformError(f"cannot access {self}: {reason}", hint="try again later") from error


@dataclass(frozen=True)
class RemoteLocation(StorageLocation):
    """A location on another machine."""

    def settle(self) -> None:
        """Do nothing: writes to another machine are durable."""

    @abstractmethod
    def _download(self, target: Path) -> None:
        """Copy the file, or the folder with its content, to a local path."""

    @contextmanager
    def local(self) -> Iterator[Path]:
        """Yield the path of a temporary copy."""
        with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
            target = Path(folder) / Path(self.name).name
            self._download(target)
            yield target

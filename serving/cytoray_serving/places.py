"""Places that callers name by URI and the service reads from or writes to: files, S3 objects, web addresses.

Nothing is allowed unless the operator lists it (:class:`Allowed`). What a URI names is checked where it is named, and
again whenever it is used, because a symbolic link may have been put there in between.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.errors import CytorayError, ForbiddenError, MissingFileError, PlatformError, RequestError
from cytoray_analysis.files import write_whole
from cytoray_analysis.images import Image, Limits, read_image, read_zarr
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_serving.downloads import bounded, too_large, without_secrets

_ZARR_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_PIECE = 2**20
_PLAIN_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^\x00-\x1f\x7f\\]*", re.IGNORECASE)


class Allowed(BaseModel):
    """Where requests may read from and write to; empty, as it is by default, nowhere.

    Parameters
    ----------
    roots
        Folders that ``file://`` URIs may lie in, symbolic links resolved.
    hosts
        Hosts that ``http`` and ``https`` URIs may name: ``host`` at the usual port, or ``host:port``. A host with an
        address inside (private, loopback, link-local, metadata) is refused unless it is written as that address.
    private_hosts
        Hosts that may be named and may lie inside.
    buckets
        ``bucket`` or ``bucket/prefix`` that ``s3://`` URIs may name.
    s3_endpoint
        Address of an S3 store that is not Amazon's. Credentials come from the environment, as boto3 reads it.
    largest_file
        Bytes that are read of one file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    roots: tuple[Path, ...] = ()
    hosts: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()
    buckets: tuple[str, ...] = ()
    s3_endpoint: str | None = None
    largest_file: int = Field(default=2**34, gt=0)


def place(uri: str, allowed: Allowed, *, field: str = "uri") -> Place:
    """Return the place that a URI names, checked; nothing is opened or asked.

    Parameters
    ----------
    uri
        ``file:///folder/name``, ``s3://bucket/key`` (keys as they are, not percent-encoded) or ``https://host/path``.
    field
        Where the URI was given, for messages.

    Raises
    ------
    RequestError
        It is no such URI, or carries credentials.
    ForbiddenError
        It names what is not allowed.
    """
    # They are kinds of Place and import this module.
    from cytoray_serving.buckets import BucketPlace
    from cytoray_serving.web_places import WebPlace

    kinds: dict[str, type[Place]] = {"file": FilePlace, "s3": BucketPlace, "http": WebPlace, "https": WebPlace}
    hint = "such as file:///data/a.tif, s3://bucket/a.tif or https://host/a.tif"
    if len(uri) > 4096 or not _PLAIN_URI.fullmatch(uri):
        raise RequestError(f"expected a URI, got {_shortened(uri)!r}", field=field, hint=hint)
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise RequestError(f"expected a URI, got {_shortened(uri)!r}", field=field, hint=hint) from error
    if parts.scheme not in kinds:
        raise RequestError(f"expected file, s3, http or https, got {parts.scheme}://", field=field, hint=hint)
    if "@" in parts.netloc:
        raise RequestError(
            "expected a URI without user and password, got one with them",
            field=field,
            hint="credentials come from the service's own environment",
        )
    path = uri.partition("://")[2] if parts.scheme == "s3" else unquote(parts.path)
    name = path.rstrip("/").rpartition("/")[2] or parts.netloc
    found = kinds[parts.scheme](uri, allowed, name)
    try:
        found.check()
    except CytorayError as error:
        raise type(error)(error.message, field=field, hint=error.hint) from error
    return found


@dataclass(frozen=True)
class Place(ABC):
    """One file, folder or OME-Zarr that a URI names.

    Every method but :meth:`joined` raises :class:`PlatformError` when the store does not answer within seconds, and
    :class:`ForbiddenError` when the place turns out to lie where it may not.

    Attributes
    ----------
    uri
        The URI.
    allowed
        What is allowed; it holds for all places below.
    name
        The last part of the path; of the fields of a plate their path in it, such as ``A/1/0``.
    """

    uri: str
    allowed: Allowed
    name: str

    def __str__(self) -> str:
        """Return the URI as messages may show it."""
        return without_secrets(self.uri)

    @abstractmethod
    def check(self) -> None:
        """Raise :class:`ForbiddenError` when the place is not allowed."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether a file or folder is there."""

    @abstractmethod
    def is_folder(self) -> bool:
        """Whether it is a folder, or a prefix with objects below it; web addresses never are."""

    @abstractmethod
    def read_bytes(self) -> bytes:
        """Return a file's bytes.

        Raises
        ------
        MissingFileError
            There is none.
        ImageTooLargeError
            It is larger than is read of one file.
        """

    @abstractmethod
    def write_bytes(self, body: bytes) -> None:
        """Write a file; readers see all of it or nothing."""

    @abstractmethod
    def delete(self) -> None:
        """Remove a file, or a folder with all that it holds; nothing happens when there is none."""

    @abstractmethod
    def zarr_store(self, *, writing: bool) -> Any:
        """Return the zarr store of an OME-Zarr that is read or written chunk by chunk."""

    @abstractmethod
    def _names(self) -> list[str]:
        """Return the names of what lies directly below, sorted."""

    def joined(self, name: str) -> Place:
        """Return a place below this one.

        Parameters
        ----------
        name
            One name, or several with ``/`` between them.

        Raises
        ------
        RequestError
            It is empty or absolute, or leads upward.
        """
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
            raise RequestError(f"expected a name below {self}, got {name!r}", hint="leave out '..' and empty names")
        return replace(self, uri=self._below(name), name=parts[-1])

    def is_zarr(self) -> bool:
        """Whether it is an OME-Zarr; of web addresses only those that have ``.zarr`` in them are asked."""
        return any(self.joined(name).exists() for name in _ZARR_FILES)

    def children(self) -> list[Place]:
        """Return what lies directly below a folder, or the fields of a plate, sorted; hidden files are left out.

        Web addresses that are no plate have none.
        """
        if self.is_zarr():
            return [replace(self.joined(path), name=path) for path in sorted(self._fields())]
        return [self.joined(name) for name in self._names() if not name.startswith(".")]

    @abstractmethod
    def local(self) -> AbstractContextManager[Path]:
        """Give a local path: that of the file or folder itself, or of a copy that is removed afterwards."""

    def open_image(self, limits: Limits, selection: Selection = EVERYTHING, *, labels: bool = False) -> Image:
        """Open an image: an OME-Zarr chunk by chunk wherever it lies, another file by a copy whose pixels are loaded.

        Files of this machine are decoded when asked for. They may name no other files.

        Parameters
        ----------
        limits, selection, labels
            As for :func:`cytoray_analysis.images.read_image`.

        Raises
        ------
        CytorayError
            As :func:`cytoray_analysis.images.read_image` raises them.
        """
        self.check()
        if self.is_zarr():
            with self._reported():
                store = self.zarr_store(writing=False)
                return read_zarr(store, limits=limits, name=str(self), selection=selection, labels=labels)
        with self.local() as path:
            image = read_image(path, limits=limits, name=str(self), alone=True, selection=selection, labels=labels)
            if isinstance(self, FilePlace):
                return image
            return replace(image, data=image.read())

    def _fields(self) -> list[str]:
        """Return the paths of the fields of an OME-Zarr plate; none of other stores."""
        attributes = self._attributes()
        wells = attributes.get("plate", {}).get("wells", [])
        fields = []
        for well in wells:
            found = self.joined(str(well["path"]))._attributes()
            fields += [f"{well['path']}/{image['path']}" for image in found.get("well", {}).get("images", [])]
        return fields

    def _attributes(self) -> dict[str, Any]:
        import zarr

        with self._reported():
            attributes = dict(zarr.open_group(self.zarr_store(writing=False), mode="r").attrs)
        inner = attributes.get("ome", attributes)
        return inner if isinstance(inner, dict) else {}

    def _below(self, name: str) -> str:
        """Return the URI of a name below this place."""
        parts = urlsplit(self.uri)
        return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}").geturl()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn what a store raises into one of our errors."""
        try:
            yield
        except CytorayError:
            raise
        except FileNotFoundError as error:
            raise MissingFileError(f"{self} does not exist", hint="check the URI") from error
        except PermissionError as error:
            raise PlatformError(
                f"{self} may not be used by the service itself", hint="the operator gives it the rights"
            ) from error
        except (OSError, TimeoutError) as error:
            raise PlatformError(f"{self} cannot be used: {reason_of(error)}", hint="try again later") from error


@dataclass(frozen=True)
class RemotePlace(Place):
    """A place of another machine."""

    @abstractmethod
    def _download(self, target: Path) -> None:
        """Copy the file, or the folder with all that it holds, to a local path."""

    @contextmanager
    def local(self) -> Iterator[Path]:
        """Give the path of a copy, which is removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
            target = Path(folder) / Path(self.name).name
            self._download(target)
            yield target


@dataclass(frozen=True)
class FilePlace(Place):
    """A file or folder of this machine."""

    def check(self) -> None:
        """Raise :class:`ForbiddenError` unless the path lies in one of the folders, symbolic links resolved."""
        self._path()

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        with self._reported():
            return self._path().exists()

    def is_folder(self) -> bool:
        """Whether it is a folder."""
        with self._reported():
            return self._path().is_dir()

    def read_bytes(self) -> bytes:
        """Return the file's bytes."""
        with self._reported():
            path = self._file()
            with path.open("rb") as file:
                return b"".join(bounded(iter(lambda: file.read(_PIECE), b""), self.allowed.largest_file, str(self)))

    def write_bytes(self, body: bytes) -> None:
        """Write the file, and the folders that it lies in."""
        with self._reported():
            write_whole(self._path(), body)

    def delete(self) -> None:
        """Remove the file or the folder."""
        with self._reported():
            path = self._path()
            if path in self._roots():
                raise ForbiddenError(f"{self} is a root of the service and stays")
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def zarr_store(self, *, writing: bool) -> Any:
        """Return the zarr store of the folder."""
        from cytoray_serving.inside import InsideStore

        return InsideStore(self._path(), inside=self._roots(), read_only=not writing)

    @contextmanager
    def local(self) -> Iterator[Path]:
        """Give the path itself; of a folder only where no link in it leads out of the folders that may be used."""
        from cytoray_serving.inside import require_all_inside

        with self._reported():
            path = self._path()
            if path.is_dir():
                require_all_inside(path, self._roots())
            else:
                path = self._file()
        yield path

    def _names(self) -> list[str]:
        with self._reported():
            path = self._path()
            return sorted(child.name for child in path.iterdir()) if path.is_dir() else []

    def _file(self) -> Path:
        path = self._path()
        if not path.exists():
            raise MissingFileError(f"{self} does not exist", hint="check the URI")
        if not path.is_file():
            raise RequestError(f"expected a file, got the folder or device {self}", hint="name one file")
        if path.stat().st_size > self.allowed.largest_file:
            raise too_large(str(self), path.stat().st_size, self.allowed.largest_file)
        return path

    def _roots(self) -> list[Path]:
        return [Path(os.path.realpath(root)) for root in self.allowed.roots]

    def _path(self) -> Path:
        parts = urlsplit(self.uri)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise RequestError(
                f"expected file:///path, got {str(self)[:200]!r}",
                hint="other hosts, queries and fragments have no meaning there; write ? as %3F and # as %23",
            )
        text = unquote(parts.path)
        if "\0" in text or ".." in text.split("/"):
            raise ForbiddenError("expected a path without '..'", hint="write the path out")
        path = Path(os.path.realpath(text))
        if not any(path.is_relative_to(root) for root in self._roots()):
            raise ForbiddenError(
                f"expected a file in a folder that this service may use, got {self}",
                hint="the operator lists folders in the service's configuration (allowed.roots)",
            )
        return path


def reason_of(error: BaseException) -> str:
    """Say in one line what a store had to say."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _shortened(uri: str) -> str:
    # What comes before an @ may be a password.
    return uri.rpartition("@")[2].partition("?")[0][:100]

"""A data set in an S3 store: listed once, downloaded file by file, and hashed without a copy.

Its files have names instead of local paths: ``s3:/bucket/key``. A file is on the disk of a node after its download.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from cytoray_analysis.errors import CytorayError, DatasetError, ForbiddenError, MissingFileError, PlatformError
from cytoray_analysis.files import whole_file, write_whole
from cytoray_services.records import reading_cache
from cytoray_services.storage.s3_client import list_objects, plain_errors, read_pinned, refusal_code, s3_client

NAMES = Path("s3:")
"""The prefix of the names of all files in buckets."""
_THREADS = 8
_FORBIDDEN = {"AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_GONE = {"NoSuchKey", "404", "PreconditionFailed", "412"}


@dataclass(frozen=True)
class StoredFile:
    """One object: its length in bytes, and the ETag of its content."""

    size: int
    etag: str


@dataclass(frozen=True, eq=False)
class RemoteFolder:
    """The objects below a prefix at the time of the listing.

    Attributes
    ----------
    uri
        ``s3://bucket/prefix``.
    files
        Files by name below the prefix. Readers get the listed content, or an error.
    """

    uri: str
    files: Mapping[str, StoredFile]

    @property
    def root(self) -> Path:
        """The name of the folder: ``s3:/bucket/prefix``."""
        return NAMES / self.uri.partition("://")[2]

    @cached_property
    def identity(self) -> str:
        """A hash of the listing, which changes with any file."""
        listing = [[name, file.size, file.etag] for name, file in sorted(self.files.items())]
        return hashlib.sha256(json.dumps([self.uri, listing]).encode()).hexdigest()

    @cached_property
    def folders(self) -> Mapping[str, tuple[str, ...]]:
        """The files below each folder."""
        found: dict[str, list[str]] = {}
        for name in self.files:
            for parent in PurePosixPath(name).parents:
                found.setdefault(parent.as_posix(), []).append(name)
        return {folder: tuple(sorted(names)) for folder, names in found.items()}

    def below(self, name: str) -> tuple[str, ...]:
        """Return the file of a name, or all files below a folder; empty if there is none."""
        return (name,) if name in self.files else self.folders.get(name, ())

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return b"".join(self._pieces(name))

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Download files, or folders with their content, to the same names below a folder.

        Existing files are kept; each file is written in one step. Missing names are ignored.

        Raises
        ------
        DatasetError
            A file has changed after the listing.
        ForbiddenError, PlatformError
            The store rejects the request or does not answer.
        """
        wanted = [file for name in names for file in self.below(name) if not (folder / file).exists()]
        with ThreadPoolExecutor(min(_THREADS, max(1, len(wanted)))) as pool:
            list(pool.map(lambda name: self._fetch(name, folder / name), dict.fromkeys(wanted)))

    def digests(self, names: Iterable[str], memory: Path) -> dict[str, str]:
        """Return the result of :func:`cytoray_services.datasets.file_digest` for the same files in a folder.

        Parameters
        ----------
        memory
            Cache folder of the digests.

        Raises
        ------
        MissingFileError
            The file does not exist.
        """
        names = list(dict.fromkeys(names))
        for name in names:
            if not self.below(name):
                raise MissingFileError(f"{self.uri}/{name} does not exist", hint="run cytoray data check on it")
        known = self._contents({file for name in names for file in self.below(name)}, memory)
        return {name: known[name] if name in self.files else self._folder_digest(name, known) for name in names}

    def _folder_digest(self, folder: str, known: Mapping[str, str]) -> str:
        inside = sorted((PurePosixPath(file).relative_to(folder).as_posix(), file) for file in self.below(folder))
        listing = "\n".join(f"{name}\t{known[file]}" for name, file in inside)
        return hashlib.sha256(listing.encode()).hexdigest()

    def _contents(self, names: set[str], memory: Path) -> dict[str, str]:
        """Return the SHA-256 of files; read only those with a new name, size or ETag."""
        path = memory / f"{hashlib.sha256(self.uri.encode()).hexdigest()[:32]}.json"
        with reading_cache(path, "the digests of remote files"):
            kept: dict[str, list[Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            known = {
                name: kept[name][2]
                for name in names & kept.keys()
                if kept[name][:2] == [self.files[name].size, self.files[name].etag]
            }
        missing = sorted(names - known.keys())
        try:
            with ThreadPoolExecutor(_THREADS) as pool:
                for name, digest in zip(missing, pool.map(self._digest, missing), strict=True):
                    known[name] = digest
        finally:  # keep the digests even if the rest fails
            if missing:
                new = {name: [self.files[name].size, self.files[name].etag, known[name]] for name in known}
                write_whole(path, json.dumps(kept | new))
        return known

    def _digest(self, name: str) -> str:
        digest = hashlib.sha256()
        for piece in self._pieces(name):
            digest.update(piece)
        return digest.hexdigest()

    def _fetch(self, name: str, path: Path) -> None:
        with whole_file(path) as file:
            for piece in self._pieces(name):
                file.write(piece)

    def _pieces(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file, if it is still the listed one."""
        bucket, key = _bucket_and_key(f"{self.uri}/{name}")
        with _store(f"{self.uri}/{name}") as store:
            yield from read_pinned(store, bucket, key, self.files[name].etag)


def list_folder(uri: str) -> RemoteFolder:
    """List the objects below a prefix.

    Raises
    ------
    MissingFileError
        The bucket does not exist, or there is nothing below the prefix.
    ForbiddenError
        The credentials do not allow it, or are missing.
    PlatformError
        s3fs is not installed, or the store does not answer.
    """
    bucket, key = _bucket_and_key(uri)
    prefix = f"{key}/" if key else ""
    files = {}
    with _store(uri) as store:
        for entry in list_objects(store, bucket, prefix):
            name = entry["Key"].removeprefix(prefix)
            if name and not name.endswith("/"):  # consoles mark folders in this way
                files[name] = StoredFile(entry["Size"], entry["ETag"])
    if not files:
        raise MissingFileError(
            f"expected files below {uri}, there are none", field="root", hint="check bucket and prefix"
        )
    strange = [name for name in files if any(part in ("", ".", "..") for part in name.split("/"))]
    if strange:
        raise DatasetError(
            f"expected keys that are valid file names below {uri}, got {strange[0]!r}",
            field="root",
            hint="rename objects with empty parts, '.' or '..' in their keys",
        )
    folder = RemoteFolder(uri, files)
    both = [name for name in files if name in folder.folders]
    if both:
        raise DatasetError(
            f"expected {uri}/{both[0]} to be a file or a folder, got both",
            field="root",
            hint="rename the object or the objects below it",
        )
    return folder


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key


@contextmanager
def _store(uri: str) -> Iterator[Any]:
    """Yield the client, and convert the errors of the store."""
    try:
        with plain_errors():
            yield s3_client(read_seconds=30, retries=4)
    except CytorayError:
        raise
    except (OSError, ValueError) as error:
        raise _refusal(uri, error) from error


def _refusal(uri: str, error: Exception) -> CytorayError:
    code = refusal_code(error)
    if code is None:
        return PlatformError(
            f"the store of {uri} does not answer: {' '.join(str(error).split())[:200]}",
            field="data.root",
            hint="check AWS_ENDPOINT_URL and the network",
        )
    if code == "NoCredentials":
        return ForbiddenError(
            f"expected credentials for {uri}, there are none",
            field="data.root",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        )
    if code == "NoSuchBucket":
        bucket = _bucket_and_key(uri)[0]
        return MissingFileError(
            f"expected the bucket {bucket!r}, it does not exist",
            field="data.root",
            hint="check its name and AWS_ENDPOINT_URL",
        )
    if code in _FORBIDDEN:
        return ForbiddenError(
            f"the credentials do not allow reading {uri} ({code})",
            field="data.root",
            hint="request s3:ListBucket and s3:GetObject for it, or set credentials that have them",
        )
    if code in _GONE:
        return DatasetError(f"{uri} was changed or removed during use", field=uri, hint="run the command again")
    return PlatformError(
        f"the store rejects the request for {uri} ({code or 'no reason given'})", hint="try again later"
    )

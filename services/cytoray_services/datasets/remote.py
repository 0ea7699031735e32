"""A data set in an S3 store: listed once, fetched file by file, hashed without being kept.

Its files have names instead of places: ``s3:/bucket/key``, as a path. What a name stands for lies on a node's disk once
it was fetched. Credentials and ``AWS_ENDPOINT_URL`` come from the environment, as boto3 reads them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from cytoray_analysis.errors import CytorayError, DatasetError, ForbiddenError, MissingFileError, PlatformError
from cytoray_analysis.files import whole_file, write_whole
from cytoray_services.records import reading_cache

NAMES = Path("s3:")
"""What the names of all files in buckets begin with."""
_PIECE = 2**20
_THREADS = 8
_FORBIDDEN = {"AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_GONE = {"NoSuchKey", "404", "PreconditionFailed", "412"}


@dataclass(frozen=True)
class StoredFile:
    """One object: its length in bytes, and the store's tag of its content."""

    size: int
    etag: str


@dataclass(frozen=True, eq=False)
class RemoteFolder:
    """What lay below a prefix when it was listed.

    Attributes
    ----------
    uri
        ``s3://bucket/prefix``.
    files
        By their names below the prefix. Readers get the content that was listed, or an error.
    """

    uri: str
    files: Mapping[str, StoredFile]

    @property
    def root(self) -> Path:
        """The name of the folder: ``s3:/bucket/prefix``."""
        return NAMES / self.uri.partition("://")[2]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    @cached_property
    def identity(self) -> str:
        """A hash of the listing: another one when any file changed."""
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
        """Return the file of a name, or all files below it where it is a folder; nothing where there is none."""
        return (name,) if name in self.files else self.folders.get(name, ())

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return b"".join(self._pieces(name))

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Bring files, or folders with all that they hold, to the same names below a folder.

        What is there already stays; each file is there whole or not at all. Names of nothing are passed over.

        Raises
        ------
        DatasetError
            A file is no longer what it was when the folder was listed.
        ForbiddenError, PlatformError
            The store refuses, or does not answer.
        """
        wanted = [file for name in names for file in self.below(name) if not (folder / file).exists()]
        with ThreadPoolExecutor(min(_THREADS, max(1, len(wanted)))) as pool:
            list(pool.map(lambda name: self._fetch(name, folder / name), dict.fromkeys(wanted)))

    def digests(self, names: Iterable[str], memory: Path) -> dict[str, str]:
        """Return what :func:`cytoray_services.datasets.file_digest` would say of the same files in a folder.

        Parameters
        ----------
        memory
            Folder in which the digests of contents that were read before are kept.

        Raises
        ------
        MissingFileError
            There is no such file.
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
        """Return the sha256 of files, reading only those whose name, size and tag are new."""
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
        finally:  # what was read counts, also when the rest could not be
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
        """Yield the content of a file that is still what was listed."""
        bucket, key = _bucket_and_key(f"{self.uri}/{name}")
        with _store(f"{self.uri}/{name}") as store:
            answer = store.get_object(Bucket=bucket, Key=key, IfMatch=self.files[name].etag)
            yield from answer["Body"].iter_chunks(_PIECE)


def list_folder(uri: str) -> RemoteFolder:
    """List what lies below a prefix.

    Raises
    ------
    MissingFileError
        There is no such bucket, or nothing below the prefix.
    ForbiddenError
        The credentials do not allow it, or there are none.
    PlatformError
        boto3 is not installed, or the store does not answer.
    """
    bucket, key = _bucket_and_key(uri)
    prefix = f"{key}/" if key else ""
    files = {}
    with _store(uri) as store:
        for page in store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                name = entry["Key"].removeprefix(prefix)
                if name and not name.endswith("/"):  # consoles mark folders so
                    files[name] = StoredFile(entry["Size"], entry["ETag"])
    if not files:
        raise MissingFileError(f"nothing lies below {uri}", field="root", hint="check bucket and prefix")
    strange = [name for name in files if any(part in ("", ".", "..") for part in name.split("/"))]
    if strange:
        raise DatasetError(
            f"expected keys that can be file names below {uri}, got {strange[0]!r}",
            field="root",
            hint="rename objects with empty parts, '.' or '..' in their keys",
        )
    folder = RemoteFolder(uri, files)
    both = [name for name in files if name in folder.folders]
    if both:
        raise DatasetError(
            f"expected {uri}/{both[0]} to be a file or a folder, got both",
            field="root",
            hint="rename the object or what lies below it",
        )
    return folder


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key


@lru_cache(maxsize=4)
def _client(*environment: str | None) -> Any:
    import boto3
    from botocore.config import Config

    retries = {"max_attempts": 4, "mode": "standard"}
    config = Config(connect_timeout=5, read_timeout=30, retries=retries, max_pool_connections=2 * _THREADS)
    return boto3.session.Session().client("s3", config=config)


@contextmanager
def _store(uri: str) -> Iterator[Any]:
    """Give the client, and say in one sentence what the store refused and what to do."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
    except ImportError as error:
        raise PlatformError(
            "data in s3:// need boto3, which is not installed", field="data.root", hint="pip install 'cytoray[s3]'"
        ) from error
    try:
        # Another place or identity in the environment is another client.
        yield _client(*(os.environ.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE")))
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ForbiddenError(
            f"there are no credentials for {uri}",
            field="data.root",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        ) from error
    except ClientError as error:
        raise _refusal(uri, str(error.response.get("Error", {}).get("Code", ""))) from error
    except (BotoCoreError, ValueError) as error:
        raise PlatformError(
            f"the store of {uri} does not answer: {' '.join(str(error).split())[:200]}",
            field="data.root",
            hint="check AWS_ENDPOINT_URL and the network",
        ) from error


def _refusal(uri: str, code: str) -> CytorayError:
    if code == "NoSuchBucket":
        bucket = _bucket_and_key(uri)[0]
        return MissingFileError(
            f"there is no bucket {bucket!r}", field="data.root", hint="check its name and AWS_ENDPOINT_URL"
        )
    if code in _FORBIDDEN:
        return ForbiddenError(
            f"the credentials do not allow to read {uri} ({code})",
            field="data.root",
            hint="ask for s3:ListBucket and s3:GetObject there, or set the credentials of somebody who has them",
        )
    if code in _GONE:
        return DatasetError(
            f"{uri} was changed or removed while it was in use", field=uri, hint="run the command again"
        )
    return PlatformError(f"the store refuses {uri} ({code or 'no reason given'})", hint="try again later")

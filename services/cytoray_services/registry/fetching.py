"""Bringing the bundle of a version to this machine: once, whole, and what was registered."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cytoray_analysis.errors import BundleError, ModelNotFoundError, PlatformError
from cytoray_analysis.files import draft_folder, follow_umask
from cytoray_services.registry.artifacts import artifact_store, present_uri
from cytoray_services.registry.connection import Connection, default_environment
from cytoray_services.registry.versions import DIGEST, ModelVersion

if TYPE_CHECKING:
    from cytoray_analysis.bundle import Bundle


def fetch(connection: Connection, version: ModelVersion) -> Path:
    """Return a local folder with the bundle of a version; see :meth:`Registry.fetch`."""
    if not DIGEST.fullmatch(version.digest):  # it becomes a folder's name, so nothing else will do
        raise BundleError(
            f"{version.reference} was not registered by Cytoray: it has no digest",
            field="digest",
            hint="register its bundle folder again, or use another version",
        )
    settings = connection.settings
    target = settings.models / version.digest
    if target.is_dir():
        return target
    with _alone(settings.home / "locks" / version.digest):
        if not target.is_dir():  # else another process was quicker
            _download(connection, version, target)
    return target


def _download(connection: Connection, version: ModelVersion, target: Path) -> None:
    from cytoray_analysis.bundle import Bundle

    prefix = f".{version.digest}"
    for abandoned in target.parent.glob(f"{prefix}*"):  # by a process that was killed, for the lock is ours
        shutil.rmtree(abandoned)
    draft = draft_folder(target)
    try:
        source = present_uri(version.source, connection.settings)
        folder, _, name = source.rpartition("/")
        no_bar = default_environment(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
        try:
            with connection.client(), no_bar:
                downloaded = artifact_store(folder, connection.uri).download_artifacts(name, str(draft))
        except (PlatformError, ModelNotFoundError) as error:
            reason = error.message.strip().splitlines()[-1]  # MLflow lists every file that it tried
            raise type(error)(
                f"the files of {version.reference} cannot be fetched from {source}: {reason}",
                field=error.field,
                hint=error.hint,
            ) from error
        check_digest(Bundle.load(downloaded), version)
        follow_umask(Path(downloaded))
        Path(downloaded).replace(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Have one process, or thread, of this machine at a time in the block; the lock of one that dies is free again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_digest(bundle: Bundle, version: ModelVersion) -> None:
    """Refuse a bundle whose files are not those that were registered.

    Raises
    ------
    BundleError
        They are not.
    """
    if bundle.digest != version.digest:
        raise BundleError(
            f"expected the files of {version.reference} to have the digest {version.digest[:12]}…, "
            f"got {bundle.digest[:12]}…",
            field=str(bundle.folder),
            hint="they were changed or damaged; remove that folder to fetch it again, or use another version",
        )

"""Download of the bundle of a version: once, complete, and verified."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cytoray_analysis.errors import BundleError, ModelNotFoundError, PlatformError
from cytoray_analysis.files import draft_folder, follow_umask, replace_whole
from cytoray_services.locks import locked
from cytoray_services.registry.artifacts import artifact_store, present_uri, reported
from cytoray_services.registry.connection import Connection
from cytoray_services.registry.versions import DIGEST, ModelVersion

if TYPE_CHECKING:
    from cytoray_analysis.bundle import Bundle


def fetch(connection: Connection, version: ModelVersion) -> Path:
    """Return a local folder with the bundle of a version; see :meth:`Registry.fetch`."""
    if not DIGEST.fullmatch(version.digest):  # it becomes the name of a folder, so it must be valid
        raise BundleError(
            f"{version.reference} was not registered by Cytoray: it has no digest",
            field="digest",
            hint="register its bundle folder again, or use another version",
        )
    settings = connection.settings
    target = settings.models / version.digest
    if target.is_dir():
        return target
    with locked(settings.home / "locks" / version.digest):
        if not target.is_dir():  # otherwise another process has done it
            _download(connection, version, target)
    return target


def _download(connection: Connection, version: ModelVersion, target: Path) -> None:
    from cytoray_analysis.bundle import Bundle

    prefix = f".{version.digest}"
    for abandoned in target.parent.glob(f"{prefix}*"):  # by a process that was killed, because we hold the lock
        shutil.rmtree(abandoned)
    draft = draft_folder(target)
    try:
        source = present_uri(version.source, connection.settings)
        folder, _, name = source.rpartition("/")
        try:
            with connection.client(), reported(source, "read"):
                downloaded = artifact_store(folder, connection.uri).download_artifacts(name, str(draft))
        except (PlatformError, ModelNotFoundError) as error:
            reason = error.message.strip().splitlines()[-1]  # MLflow lists every file that it tried
            raise type(error)(
                f"the files of {version.reference} cannot be downloaded from {source}: {reason}",
                field=error.field,
                hint=error.hint,
            ) from error
        try:
            check_digest(Bundle.load(downloaded), version)
        except BundleError as error:
            reason = error.message.replace(str(downloaded), "they")
            raise BundleError(
                f"the files of {version.reference} in {source} differ from those that were registered: {reason}",
                field=error.field if error.field != str(downloaded) else None,
                hint="register its bundle again, or use another version",
            ) from error
        follow_umask(Path(downloaded))
        replace_whole(Path(downloaded), target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_digest(bundle: Bundle, version: ModelVersion) -> None:
    """Raise an error if the files of a bundle differ from those that were registered.

    Raises
    ------
    BundleError
        They differ.
    """
    if bundle.digest != version.digest:
        raise BundleError(
            f"expected the files of {version.reference} to have the digest {version.digest[:12]}…, "
            f"got {bundle.digest[:12]}…",
            field=str(bundle.folder),
            hint="they were changed or damaged; remove this folder to download them again, or use another version",
        )

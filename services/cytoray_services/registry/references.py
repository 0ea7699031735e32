"""From what a user writes for a model to its bundle: a folder, or a reference to the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cytoray_analysis.errors import ModelNotFoundError
from cytoray_services.registry.fetching import check_digest
from cytoray_services.registry.store import Registry
from cytoray_services.registry.versions import ModelVersion
from cytoray_services.settings import Settings

if TYPE_CHECKING:
    from cytoray_analysis.bundle import Bundle


def load_bundle(reference: str, settings: Settings, *, known: bool = False) -> tuple[Bundle, ModelVersion | None]:
    """Open a bundle by folder or by reference to the registry.

    Parameters
    ----------
    reference
        A folder that holds ``bundle.yaml``, or anything with the look of a path; else ``name``,
        ``name@alias`` or ``name/version``.
    settings
        Which registry to ask.
    known
        While the registry is away, take the version that it named when last asked so on this machine. For services,
        which answer rather than wait; whoever compares versions wants to be sure of the one he gets.

    Returns
    -------
    tuple
        The bundle, and its version; None for a folder.

    Raises
    ------
    ModelNotFoundError, BundleError, RequestError, PlatformError
        See :meth:`Registry.resolve` and :meth:`Registry.fetch`.
    """
    from cytoray_analysis.bundle import SPEC, Bundle

    folder = Path(reference).expanduser()
    looks_like_path = reference.startswith((".", "/", "~")) or reference.count("/") > 1
    if looks_like_path or (folder / SPEC).is_file():
        return Bundle.load(folder), None
    registry = Registry.open(settings)
    try:
        version = registry.resolve_or_known(reference)[0] if known else registry.resolve(reference)
    except ModelNotFoundError as error:
        if not folder.is_dir():
            raise
        hint = f"there is a folder {reference}, but it holds no {SPEC}: is it the model?"
        raise ModelNotFoundError(error.message, field=error.field, hint=hint) from error
    bundle = Bundle.load(registry.fetch(version))
    check_digest(bundle, version)
    return bundle, version

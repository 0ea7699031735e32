"""From the name of a model to its bundle: a folder, or a reference to the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cytoray_analysis.errors import ModelNotFoundError
from cytoray_services.registry.fetching import check_digest
from cytoray_services.registry.store import Registry
from cytoray_services.registry.versions import ModelVersion
from cytoray_services.settings import Settings

if TYPE_CHECKING:
    from cytoray_analysis.bundle import Bundle
    from cytoray_analysis.predictor import Predictor


def load_bundle(reference: str, settings: Settings, *, known: bool = False) -> tuple[Bundle, ModelVersion | None]:
    """Open a bundle by folder or by reference to the registry.

    Parameters
    ----------
    reference
        A folder with ``bundle.yaml``, or any text that looks like a path; otherwise ``name``, ``name@alias`` or
        ``name/version``.
    settings
        Settings with the registry.
    known
        While the registry is unreachable, use its last answer on this machine. For services, which must answer; not for
        comparisons of versions.

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
        hint = f"the folder {reference} exists but contains no {SPEC}: check that it is a model"
        raise ModelNotFoundError(error.message, field=error.field, hint=hint) from error
    bundle = Bundle.load(registry.fetch(version))
    check_digest(bundle, version)
    return bundle, version


def load_predictor(reference: str, settings: Settings, **options: Any) -> Predictor:
    """Load a model to predict with; its answers carry its name and version in the registry.

    Parameters
    ----------
    reference, settings
        As for :func:`load_bundle`.
    options
        Arguments of :class:`~cytoray_analysis.predictor.Predictor`, such as ``device`` and ``memory_budget``.

    Raises
    ------
    ModelNotFoundError, BundleError, RequestError, PlatformError
        As :func:`load_bundle`.
    """
    return predictor_of(*load_bundle(reference, settings), **options)


def predictor_of(bundle: Bundle, version: ModelVersion | None, **options: Any) -> Predictor:
    """Return the predictor of a bundle from :func:`load_bundle`; parameters as for :func:`load_predictor`."""
    from cytoray_analysis.predictor import Predictor

    if version is not None:
        options |= {"name": version.name, "version": version.version}
    return Predictor(bundle, **options)

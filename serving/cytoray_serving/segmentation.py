"""Segmentation models that find the objects for another model, such as the cells of a movie for a linker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import PlatformError
from cytoray_analysis.inference.objects import require_labels
from cytoray_analysis.predictor import Predictor
from cytoray_services.registry import ModelVersion, Registry, load_bundle
from cytoray_services.settings import Settings

_KEPT = 2  # models, the last ones that were named


@dataclass(frozen=True)
class _Known:
    predictor: Predictor
    version: ModelVersion
    looked: float


class Segmenters:
    """Registered segmentation models by reference, loaded when first named and kept.

    Bundle folders are no references here: who asks a service names models, not files of its machine.

    Parameters
    ----------
    settings
        Where the registry is.
    load
        Makes a predictor of a bundle and its version.
    poll_seconds
        How long a reference is believed to point where it did.
    """

    def __init__(
        self, settings: Settings, load: Callable[[Bundle, ModelVersion | None], Predictor], poll_seconds: float
    ) -> None:
        self._settings = settings
        self._registry = Registry.open(settings)
        self._load = load
        self._poll_seconds = poll_seconds
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def find(self, reference: str) -> tuple[Predictor, ModelVersion]:
        """Return the model that a reference points to now.

        Raises
        ------
        ModelNotFoundError
            There is none.
        RequestError
            It is no reference, or no segmentation model.
        PlatformError
            The registry cannot be reached, and the model was never loaded.
        """
        with self._lock:
            known = self._known.get(reference)
            if known is None or time.monotonic() - known.looked > self._poll_seconds:
                known = self._look(reference, known)
            self._known.pop(reference, None)
            self._known[reference] = known
            while len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]
            return known.predictor, known.version

    def _look(self, reference: str, known: _Known | None) -> _Known:
        try:
            version = self._registry.resolve(reference)
        except PlatformError:
            if known is None:
                raise
            return known  # what is loaded goes on while the registry is away, as served models do
        if known is not None and known.version.version == version.version:
            return replace(known, looked=time.monotonic())
        bundle, _ = load_bundle(version.reference, self._settings)
        predictor = self._load(bundle, version)
        require_labels(predictor, reference)
        return _Known(predictor, version, time.monotonic())

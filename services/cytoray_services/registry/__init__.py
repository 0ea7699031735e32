"""The registry: models, versions, aliases and runs, stored in MLflow. The only module that uses MLflow."""

from __future__ import annotations

from cytoray_services.registry.offline_run import KEPT, OfflineRun
from cytoray_services.registry.references import load_bundle, load_predictor, predictor_of
from cytoray_services.registry.run import Run, whoami
from cytoray_services.registry.store import Registry
from cytoray_services.registry.versions import (
    CANDIDATE,
    CHAMPION,
    AliasMove,
    ModelRecord,
    ModelVersion,
    Reference,
    RegisteredModel,
    exact_reference,
    parse_reference,
)

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "KEPT",
    "AliasMove",
    "ModelRecord",
    "ModelVersion",
    "OfflineRun",
    "Reference",
    "RegisteredModel",
    "Registry",
    "Run",
    "exact_reference",
    "load_bundle",
    "load_predictor",
    "parse_reference",
    "predictor_of",
    "whoami",
]

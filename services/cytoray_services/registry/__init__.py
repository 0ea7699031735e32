"""The registry: models, versions, aliases and runs, kept in MLflow. The only door to MLflow."""

from __future__ import annotations

from cytoray_services.registry.kept_run import KEPT, KeptRun
from cytoray_services.registry.references import load_bundle
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
    parse_reference,
)

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "KEPT",
    "AliasMove",
    "KeptRun",
    "ModelRecord",
    "ModelVersion",
    "Reference",
    "RegisteredModel",
    "Registry",
    "Run",
    "load_bundle",
    "parse_reference",
    "whoami",
]

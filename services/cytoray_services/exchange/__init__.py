"""Exchange of models with other registries, machines and programs: bundles, ONNX, BioImage Model Zoo packages."""

from __future__ import annotations

from cytoray_services.exchange.importing import Imported, opened
from cytoray_services.exchange.leaving import leaving, record_of_bundle, record_of_version
from cytoray_services.exchange.onnx_export import OnnxFacts, export_onnx
from cytoray_services.exchange.zoo.description import Credits, credits_of
from cytoray_services.exchange.zoo.foreign_weights import Consent
from cytoray_services.exchange.zoo.package import PackageFacts, export_bundle, export_package

__all__ = [
    "Consent",
    "Credits",
    "Imported",
    "OnnxFacts",
    "PackageFacts",
    "credits_of",
    "export_bundle",
    "export_onnx",
    "export_package",
    "leaving",
    "opened",
    "record_of_bundle",
    "record_of_version",
]

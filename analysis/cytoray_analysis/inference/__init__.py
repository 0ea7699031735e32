"""Inference: the runner of the network, and one module for each kind of output."""

from __future__ import annotations

from cytoray_analysis.inference.cells import CellInference
from cytoray_analysis.inference.links import LinkInference
from cytoray_analysis.inference.pixels import PixelInference
from cytoray_analysis.inference.protocol import Inference, ModelIdentity, Prediction
from cytoray_analysis.inference.runner import NetworkRunner

INFERENCE: dict[str, type[Inference]] = {"pixel": PixelInference, "cell": CellInference, "link": LinkInference}

__all__ = ["INFERENCE", "Inference", "ModelIdentity", "NetworkRunner", "Prediction"]

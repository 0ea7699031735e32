"""Training examples: arrays from labelled images, and how each kind is sampled and augmented."""

from __future__ import annotations

from cytoray_analysis.examples.cells import CellExamples
from cytoray_analysis.examples.links import LinkExamples
from cytoray_analysis.examples.pixels import PixelExamples
from cytoray_analysis.examples.protocol import Example, Examples, Places, ScaledPixels

EXAMPLES: dict[str, Examples] = {"pixel": PixelExamples(), "cell": CellExamples(), "link": LinkExamples()}

__all__ = ["EXAMPLES", "Example", "Examples", "Places", "ScaledPixels"]

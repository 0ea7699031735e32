"""Cytoray for scripts and notebooks: load a model, or connect to a service, and inspect the answer.

>>> import cytoray
>>> model = cytoray.load_model("nuclei@champion")  # doctest: +SKIP
>>> answer = model.predict("cells.tif")  # doctest: +SKIP
>>> answer.labels, answer.table(), answer.save("cells.geojson")  # doctest: +SKIP

A service gives the same answer, and this process then loads no PyTorch:

>>> with cytoray.Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     answer = client.predict("cells.tif", model="nuclei@champion")

Everything is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cytoray.answer import Answer
    from cytoray.client import Client
    from cytoray.model import Model, load_model
    from cytoray_analysis.errors import CytorayError
    from cytoray_analysis.images import Image, read_image

_HOMES = {
    "Answer": "cytoray.answer",
    "Client": "cytoray.client",
    "CytorayError": "cytoray_analysis.errors",
    "Image": "cytoray_analysis.images",
    "Model": "cytoray.model",
    "load_model": "cytoray.model",
    "read_image": "cytoray_analysis.images",
}

__all__ = ["Answer", "Client", "CytorayError", "Image", "Model", "load_model", "read_image"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cytoray' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

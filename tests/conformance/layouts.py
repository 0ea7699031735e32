"""Files as people have them, each with the array, axes, channel names and pixel size that every way in must give."""

from __future__ import annotations

from conformance.colours import TIFFS_IN_COLOUR
from conformance.layout import Layout
from conformance.ome import OME
from conformance.pictures import PICTURES
from conformance.stores import STORES
from conformance.tiffs import TIFFS

__all__ = ["LAYOUTS", "Layout"]

LAYOUTS: dict[str, Layout] = {**TIFFS, **TIFFS_IN_COLOUR, **OME, **PICTURES, **STORES}

"""The forms of an answer, and how ``Accept`` chooses among them.

=========  =========  ======================================  =====================================================
kind       form       media type                              what it is
=========  =========  ======================================  =====================================================
labels     tif        ``image/tiff``                          label image, 16 or 32 bit, deflate
labels     json       ``application/json``                    table of objects
labels     geojson    ``application/geo+json``                polygons for QuPath
labels     overlay    ``image/png``                           the image with every object outlined; volumes from above
labels     png        ``image/png; content=labels``           label image, 16 bit
labels     csv        ``text/csv``                            measurements of every object
labels     arrow      ``application/vnd.apache.arrow.stream`` the same, with types, as an Arrow stream
image      tif        ``image/tiff``                          the predicted channels, OME-TIFF, float32
image      png        ``image/png``                           the first channel, with stretched contrast
image      json       ``application/json``                    range and mean of every channel
class      json       ``application/json``                    class and probabilities of every cell
class      csv        ``text/csv``                            the same as a table
class      arrow      ``application/vnd.apache.arrow.stream`` the same with types, as an Arrow stream
class      overlay    ``image/png``                           the image with a box and a class around every cell
class      heatmap    ``image/png; content=heatmap``          the pixels that decided the class
lineage    zip        ``application/zip``                     masks and ``res_track.txt`` (Cell Tracking Challenge)
lineage    csv        ``text/csv``                            for the tracks layer of napari
lineage    divisions  ``text/csv; content=divisions``         divisions with their confidence, the least sure first
lineage    geff       ``application/zip; content=geff``       GEFF, the graph exchange format
lineage    json       ``application/json``                    table of tracks
lineage    arrow      ``application/vnd.apache.arrow.stream`` the same with types, as an Arrow stream
each       arrays     ``application/x-safetensors``           the prediction as arrays, for programs
=========  =========  ======================================  =====================================================

The first form of a kind is the default.
"""

from cytoray_serving.answers.arrays import Arrays, read_arrays
from cytoray_serving.answers.choosing import choose_form, form_named, forms_of, media_types, require_zarr
from cytoray_serving.answers.form import ZARR, ZARR_SUFFIX, Form
from cytoray_serving.answers.kind import AnswerKind, answer_kind, answer_kinds

__all__ = [
    "ZARR",
    "ZARR_SUFFIX",
    "AnswerKind",
    "Arrays",
    "Form",
    "answer_kind",
    "answer_kinds",
    "choose_form",
    "form_named",
    "forms_of",
    "media_types",
    "read_arrays",
    "require_zarr",
]

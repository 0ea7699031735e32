"""The forms of an answer, and how ``Accept`` chooses among them.

=========  =========  ======================================  =====================================================
kind       form       media type                              what it is
=========  =========  ======================================  =====================================================
labels     tif        ``image/tiff``                          label image, 16 or 32 bit, deflate
labels     json       ``application/json``                    table of objects
labels     geojson    ``application/geo+json``                polygons, as QuPath opens them
labels     overlay    ``image/png``                           the image with every object outlined; volumes from above
labels     png        ``image/png; content=labels``           label image, 16 bit
labels     csv        ``text/csv``                            measurements of every object
labels     arrow      ``application/vnd.apache.arrow.stream`` the same, with types, as an Arrow stream
image      tif        ``image/tiff``                          the predicted channels, OME-TIFF, float32
image      png        ``image/png``                           the first channel, stretched for the eye
image      json       ``application/json``                    range and mean of every channel
class      json       ``application/json``                    class and probabilities of every cell
class      csv        ``text/csv``                            the same as a table
class      arrow      ``application/vnd.apache.arrow.stream`` the same with types, as an Arrow stream
class      overlay    ``image/png``                           the image with a box and a class around every cell
class      heatmap    ``image/png; content=heatmap``          what the network looked at
lineage    zip        ``application/zip``                     masks and ``res_track.txt`` (Cell Tracking Challenge)
lineage    csv        ``text/csv``                            as the tracks layer of napari opens it
lineage    geff       ``application/zip; content=geff``       GEFF, the graph exchange format
lineage    json       ``application/json``                    table of tracks
lineage    arrow      ``application/vnd.apache.arrow.stream`` the same with types, as an Arrow stream
each       arrays     ``application/x-safetensors``           the prediction as arrays, for programs
=========  =========  ======================================  =====================================================

The first form of a kind is what a caller gets who accepts anything.
"""

from cytoray_serving.answers.arrays import Arrays, read_arrays
from cytoray_serving.answers.choosing import FORMS, choose_form, form_named, media_types
from cytoray_serving.answers.form import Answered, Form

__all__ = ["FORMS", "Answered", "Arrays", "Form", "choose_form", "form_named", "media_types", "read_arrays"]

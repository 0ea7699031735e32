"""What ruins a training, found before any worker starts, with file and remedy.

Every data set:

=============================== ======== ====================================================================
code                            severity what it means
=============================== ======== ====================================================================
``missing-column``, ``layout``  error    the manifest or the folder cannot be understood
``missing-file``                error    an image or its truth is not there
``unreadable``, ``truncated``   error    a file is damaged, of an unknown format, or cut off
``wrong-axes``                  error    time or depth where the others have none or the model takes none, and
                                         the reverse
``wrong-channels``              error    another number of channels than the others or than asked for
``not-finite``                  error    NaN or infinity among the pixels
``size-mismatch``               error    image and truth differ in size
``split-missing``               error    a split that training needs has no image
``duplicate-across-splits``     error    the same pixels, or the same cell, in two splits
``constant-image``              warning  every pixel has the same value
``no-split-column``             warning  nobody gave a split, so one was drawn (a note for movies)
=============================== ======== ====================================================================

Instance labels (segmentation):

=============================== ======== ====================================================================
``float-mask``                  error    labels that are no numbers of objects
``negative-mask``               error    labels below zero
``too-many-ids``                error    a number over 65,535
``empty-mask``                  warning  no object at all
``fragmented-ids``              warning  one number for objects far apart, as in a binary mask
=============================== ======== ====================================================================

Target images (label-free prediction):

=============================== ======== ====================================================================
``shifted-target``              error    most targets lie beside their images by the same distance
``shifted-target``              warning  one does
``constant-target``             warning  nothing to predict
=============================== ======== ====================================================================

Classes:

=============================== ======== ====================================================================
``missing-label``               error    a cell or an image without a class
``single-class``                error    nothing to tell apart
``class-missing``               error    a class of one split is absent from another
``empty-box``, ``box-outside``  error    no pixel of the image is in the box, or hardly one
``rare-class``                  warning  a class has fewer than ten examples in a split
``shared-image``                warning  cells of one image are in two splits
``class-imbalance``             note     the largest class has three times the examples of the smallest, or more
=============================== ======== ====================================================================

Lineages (tracking):

=============================== ======== ====================================================================
``missing-frame``               error    a gap in the numbering of frames or masks
``invalid-lineage``             error    a track whose parent is unknown or lasts too long, or which is listed twice
``invalid-mask``                error    masks that hold no labels
``unlisted-object``             error    the masks have what the list of tracks has not
``missing-object``              error    the list of tracks has what the masks have not
``few-divisions``               note     fewer than ten divisions
=============================== ======== ====================================================================
"""

from cytoray_services.datasets.check.checks import check_dataset, check_folder, open_for_check, usual_splits
from cytoray_services.datasets.check.classes import count_classes, imbalance
from cytoray_services.datasets.check.findings import Finding

__all__ = ["Finding", "check_dataset", "check_folder", "count_classes", "imbalance", "open_for_check", "usual_splits"]

"""What ruins a training, found before any worker starts, with file and remedy.

Every data set:

=============================== ======== ====================================================================
code                            severity what it means
=============================== ======== ====================================================================
``missing-column``, ``layout``  error    the manifest or the folder cannot be understood
``unknown-split``               error    the name of a split looks like a mistake (``trian``, ``Val``, empty)
``ambiguous-name``              error    two images claim one truth, or two truths one image
``missing-file``                error    an image or its truth is not there
``unreadable``, ``truncated``   error    a file is damaged, of an unknown format, or cut off
``wrong-axes``                  error    time or depth where the others have none or the model takes none, and
                                         the reverse
``wrong-channels``              error    another number of channels than the others or than asked for
``too-large``                   error    the pixels do not fit into the memory that is free
``not-finite``                  error    NaN or infinity among the pixels
``size-mismatch``               error    image and truth differ in size
``split-missing``               error    a split that training needs has no image
``duplicate-across-splits``     error    the same pixels, or the same cell, in two splits
``truth-across-splits``         error    one truth is that of images in two splits
``truth-used-twice``            error    one truth is that of two images (in one split of a manifest: a note)
``listed-twice``                note     one image with one truth in two rows of a split
``copy-across-splits``          error    the same picture in two splits, with another bit depth or contrast
``unlike-others``               note     type, size, channel names, pixel size, brightness, noise or single pixels of
                                         one file, or frame, are unlike those of all others, which agree
``same-image``, ``same-truth``  note     the same pixels under two names in one split; one truth under two names
``constant-image``              warning  every pixel has the same value
``shared-group``                warning  a group of the manifest is in two splits
``unused-file``                 warning  an image or a truth of a plain folder that no item uses
``no-split-column``             warning  no split is given, so one was drawn, with its numbers (a note for movies)
``no-test-split``               note     no split ``test`` is given, so one was drawn from ``train``
=============================== ======== ====================================================================

Masks (segmentation, and those of tracks):

=============================== ======== ====================================================================
``float-mask``                  error    labels that are no whole numbers, or too large to be told apart
``lossy-mask``                  error    stored as JPEG or with another codec that changes numbers
``negative-mask``               error    labels below zero
``too-many-ids``                error    more than 65,535 objects
``misplaced-masks``             error    most masks fit their images only when mirrored, transposed or moved
``misplaced-masks``             warning  one does
``exchanged-masks``             warning  masks fit other images of the set, not their own; or none fits its own better
                                         than those of others do
``background-not-zero``         warning  one object covers most of the image, from side to side
``empty-mask``                  warning  no object at all
``fragmented-ids``              warning  one number for objects far apart, as in a binary mask; an error for a movie
                                         that has no other number
=============================== ======== ====================================================================

Masks of classes (where a recipe says that they are):

=============================== ======== ====================================================================
``unknown-class``               error    a number, or the name of a cell's class, that the recipe does not name
``class-without-pixels``        error    no mask shows the class, as where 255 stands for it
``class-without-pixels``        warning  a split does not show it
``nothing-to-score``            error    the score that chooses weights has nothing to count in validation
=============================== ======== ====================================================================

Target images (label-free prediction):

=============================== ======== ====================================================================
``shifted-target``              error    most targets lie beside their images by the same distance
``shifted-target``              warning  one does
``turned-target``               error    most targets fit their images only when mirrored or transposed
``turned-target``               warning  one does
``copied-target``               warning  the target is the input, but for brightness and contrast
``constant-target``             warning  nothing to predict
=============================== ======== ====================================================================

Classes:

=============================== ======== ====================================================================
``missing-label``               error    a cell or an image without a class
``single-class``                error    nothing to tell apart
``class-missing``               error    a class of one split is absent from another (a drawn split: a warning)
``empty-box``, ``box-outside``  error    no pixel of the image is in the box, or hardly one
``rare-class``                  warning  a class has fewer than ten examples in a split
``shared-image``                warning  cells of one image are in two splits
``class-imbalance``             note     the largest class has three times the examples of the smallest, or more
=============================== ======== ====================================================================

Lineages (tracking):

=============================== ======== ====================================================================
``missing-frame``               error    a gap in the numbering of frames or masks
``invalid-lineage``             error    a track whose parent is unknown or lasts too long, or which is listed twice
``invalid-mask``                error    masks or outlines (``SEG``) that hold no labels or cannot be read
``unlisted-object``             error    the masks have what the list of tracks has not
``missing-object``              error    the list of tracks has what the masks have not
``few-divisions``               note     fewer than ten divisions
=============================== ======== ====================================================================
"""

from cytoray_services.datasets.check.checks import check_dataset, check_folder, open_for_check, usual_splits
from cytoray_services.datasets.check.classes import count_classes, imbalance
from cytoray_services.datasets.check.findings import Finding

__all__ = ["Finding", "check_dataset", "check_folder", "count_classes", "imbalance", "open_for_check", "usual_splits"]

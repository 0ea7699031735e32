"""Problems that would damage a training run, found before any worker starts, with file and remedy.

Every data set:

=============================== ======== ====================================================================
code                            severity what it means
=============================== ======== ====================================================================
``missing-column``, ``layout``  error    the manifest or the folder cannot be understood
``unknown-split``               error    the name of a split looks like a mistake (``trian``, ``Val``, empty)
``ambiguous-name``              error    two images claim one truth, or two truths one image
``missing-file``                error    an image or its truth does not exist
``unreadable``, ``truncated``   error    a file is damaged, of an unknown format, or cut off
``wrong-axes``                  error    time or depth axes that the other images or the model do not have, or
                                         the reverse
``wrong-channels``              error    another number of channels than the others or the model
``too-large``                   error    the pixels do not fit into the free memory
``not-finite``                  error    NaN or infinity among the pixels
``size-mismatch``               error    image and truth differ in size
``split-missing``               error    a split that training needs has no images
``duplicate-across-splits``     error    the same pixels, or the same cell, in two splits
``truth-across-splits``         error    images in two splits share one truth
``truth-used-twice``            error    two images share one truth (in one split of a manifest: a note)
``listed-twice``                note     one image with one truth in two rows of a split
``copy-across-splits``          error    the same image in two splits, with another bit depth or contrast
``unlike-others``               note     type, size, channel names, pixel size, brightness, noise or single pixels of
                                         one file, or frame, differ from all others, which agree
``same-image``, ``same-truth``  note     the same pixels under two names in one split; one truth under two names
``constant-image``              warning  every pixel has the same value
``shared-group``                warning  a group of the manifest is in two splits
``unused-file``                 warning  an image or a truth of a plain folder that no item uses
``no-split-column``             warning  no split is given, so one was drawn, with its numbers (a note for movies)
``no-test-split``               note     no split ``test`` is given, so one was drawn from ``train``
=============================== ======== ====================================================================

Masks (segmentation, and those of tracks):

=============================== ======== ====================================================================
``float-mask``                  error    labels that are not integers, or too large to be distinct
``lossy-mask``                  error    stored as JPEG or with another codec that changes numbers
``negative-mask``               error    labels below zero
``too-many-ids``                error    more than 65,535 objects
``misplaced-masks``             error    most masks fit their images only when mirrored, transposed or moved
``misplaced-masks``             warning  one does
``exchanged-masks``             warning  masks fit other images of the set, not their own; or none fits its own image
                                         better than other masks do
``background-not-zero``         warning  one object covers most of the image, from side to side
``empty-mask``                  warning  no object
``nothing-known``               error    no pixel of a split is known (of one image: a note)
``cut-objects``                 warning  the mask of known pixels contains a part of an object
``fragmented-ids``              warning  one number for objects far apart, as in a binary mask; an error for a movie
                                         with a single number
=============================== ======== ====================================================================

Masks of classes (if a recipe defines them):

=============================== ======== ====================================================================
``unknown-class``               error    a number, or the name of a cell's class, that is not in the recipe
``class-without-pixels``        error    no mask contains the class, for example if 255 stands for it
``class-without-pixels``        warning  a split does not contain it
``nothing-to-score``            error    the score that chooses weights has nothing to count in validation
=============================== ======== ====================================================================

Target images (label-free prediction):

=============================== ======== ====================================================================
``shifted-target``              error    most targets are shifted by the same distance from their images
``shifted-target``              warning  one does
``turned-target``               error    most targets fit their images only when mirrored or transposed
``turned-target``               warning  one does
``copied-target``               warning  the target equals the input except for brightness and contrast
``constant-target``             warning  nothing to predict
=============================== ======== ====================================================================

Classes:

=============================== ======== ====================================================================
``missing-label``               error    a cell or an image without a class
``single-class``                error    only one class
``class-missing``               error    a class of one split is absent from another (a drawn split: a warning)
``empty-box``, ``box-outside``  error    the box contains almost no pixel of the image
``rare-class``                  warning  a class has fewer than ten examples in a split
``shared-image``                warning  cells of one image are in two splits
``class-imbalance``             note     the largest class has three times the examples of the smallest, or more
=============================== ======== ====================================================================

Lineages (tracking):

=============================== ======== ====================================================================
``missing-frame``               error    a gap in the numbering of frames or masks
``invalid-lineage``             error    a track whose parent is unknown or lasts too long, or which is listed twice
``invalid-mask``                error    masks or outlines (``SEG``) without labels, or unreadable
``unlisted-object``             error    the masks have objects that are not in the list of tracks
``missing-object``              error    the list of tracks has objects that are not in the masks
``few-divisions``               note     fewer than ten divisions
=============================== ======== ====================================================================
"""

from cytoray_services.datasets.check.checks import check_dataset, open_for_check, usual_splits
from cytoray_services.datasets.check.classes import count_classes, imbalance
from cytoray_services.datasets.check.findings import Finding

__all__ = ["Finding", "check_dataset", "count_classes", "imbalance", "open_for_check", "usual_splits"]

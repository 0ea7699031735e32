"""Names of images and of their truth: format suffixes, and names that refer to the same image."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

# Of files that hold images, whether or not the reader of that format is installed. A longer one goes before its end.
IMAGE_SUFFIXES = (
    *(
        ".zarr.zip",
        ".ozx",
        ".zarr",
        ".tif",
        ".tiff",
        ".btf",
        ".tf2",
        ".tf8",
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".jp2",
        ".bmp",
        ".gif",
    ),
    *(".webp", ".czi", ".lsm", ".zvi", ".nd2", ".nd", ".lif", ".xlef", ".oib", ".oif", ".oir", ".vsi", ".ims", ".dv"),
    *(
        ".r3d",
        ".mrc",
        ".stk",
        ".flex",
        ".svs",
        ".ndpi",
        ".scn",
        ".mrxs",
        ".qptiff",
        ".bif",
        ".nii.gz",
        ".nii",
        ".nrrd",
        ".mha",
    ),
)
"""Suffixes of image files and folders, in small letters."""
_UNFIT = re.compile(r"[^\w.+-]+")
TRUTH_WORDS = (
    *(
        "cp_masks",
        "cp_mask",
        "masks",
        "mask",
        "labels",
        "label",
        "labelimage",
        "segmentation",
        "segmented",
        "seg",
        "gt",
    ),
    *("groundtruth", "ground_truth", "ground-truth", "truth", "annotation", "annotations", "instances", "instance"),
    *("target", "targets", "objects"),
)
"""Suffixes of an image's name that mark its truth, after ``_``, ``-``, ``.`` or a blank."""
IMAGE_WORDS = ("img", "image", "images", "raw", "input", "inputs")
"""Suffixes of images that have a truth, as in ``003_img.png`` next to ``003_masks.png``."""
_JOINTS = "_-. "
_OF_SYSTEMS = ("thumbs.db", "desktop.ini", "__macosx")


def normal_name(name: str | Path) -> str:
    """Return the last part of a path in composed Unicode (NFC), as names are compared: é is one letter or two on disk.

    Names are case-sensitive: ``a1`` and ``A1`` are two names.
    """
    return unicodedata.normalize("NFC", Path(name).name)


def image_suffix(name: str | Path) -> str:
    """Return the suffix of an image's format, as written: ``.ome.tif``, ``.PNG``; empty for none.

    Any other text after a dot is part of the name: ``plate1.A0`` has no suffix.
    """
    whole = normal_name(name)
    low = whole.lower()
    found = max((one for one in IMAGE_SUFFIXES if low.endswith(one)), key=len, default="")
    if found and low.removesuffix(found).endswith(".ome"):
        found = f".ome{found}"
    # A file called .tif has this as its name.
    return whole[len(whole) - len(found) :] if len(found) < len(whole) else ""


def image_stem(name: str | Path) -> str:
    """Return the name of an image without its folder and the suffix of its format, in composed Unicode.

    Examples
    --------
    >>> image_stem("plates/plate1.A0.ome.tif"), image_stem("dose_0.5uM.TIF"), image_stem("x.zarr")
    ('plate1.A0', 'dose_0.5uM', 'x')
    """
    whole = normal_name(name)
    return whole.removesuffix(image_suffix(whole))


def truth_stem(name: str | Path) -> str:
    """Return the stem of the image of a truth: without format, and without ``_mask``, ``_labels`` and the like.

    Examples
    --------
    >>> truth_stem("x_mask.tif"), truth_stem("x.ome_labels.png"), truth_stem("x.tif_cp_masks.tif"), truth_stem("x.tif")
    ('x', 'x', 'x', 'x')
    """
    return _without(image_stem(name), TRUTH_WORDS)


def pictured_stem(name: str | Path) -> str:
    """Return the stem of an image also without ``_img``, ``_raw`` and the like, for truths that no other rule finds."""
    return _without(image_stem(name), IMAGE_WORDS)


def is_image_name(name: str | Path) -> bool:
    """Whether a name ends like that of an image and is not hidden."""
    return bool(image_suffix(name)) and not Path(name).name.startswith(".")


def is_of_system(name: str | Path) -> bool:
    """Whether a name is that of a file which operating systems put into folders, or of a hidden one."""
    text = Path(name).name
    return text.startswith(".") or text.casefold() in _OF_SYSTEMS


def _without(stem: str, words: tuple[str, ...]) -> str:
    low = stem.lower()
    for word in sorted(words, key=len, reverse=True):
        if low.endswith(word) and low.removesuffix(word).endswith(tuple(_JOINTS)):
            rest = stem[: -len(word) - 1].rstrip(_JOINTS)
            # The image's own format may stand before the word: x.tif_mask.png, x.ome_labels.png.
            return image_stem(rest).removesuffix(".ome") if rest else stem
    return stem


def name_part(text: str) -> str:
    """Return a text, such as the name of a series, in a form that is valid in a file name."""
    return _UNFIT.sub("_", text)[:80].strip("._") or "unnamed"

"""Size limits of one file, and of the metadata of an OME-Zarr, in every storage."""

from __future__ import annotations

from cytoray_analysis.errors import ImageTooLargeError

METADATA = frozenset({"zarr.json", ".zattrs", ".zarray", ".zgroup", ".zmetadata"})
MOST_METADATA = 2**22  # JSON needs twenty times as much memory, or more


def most_of(name: str, largest: int) -> int:
    """Return the maximum bytes of a file or an object.

    Parameters
    ----------
    name
        Its path or key; the last part identifies the metadata of an OME-Zarr.
    largest
        Maximum bytes of one file.
    """
    return min(largest, MOST_METADATA) if name.rpartition("/")[2] in METADATA else largest


def check_size(source: str, size: int, largest: int) -> None:
    """Raise an error if a file, or the requested part, exceeds the limit.

    Parameters
    ----------
    source
        Its URI, path or key.
    size
        The requested bytes.
    largest
        Maximum bytes of one file.

    Raises
    ------
    ImageTooLargeError
        It is larger.
    """
    if size > most_of(source, largest):
        raise too_large(source, size, most_of(source, largest))


def too_large(source: str, size: int, limit: int) -> ImageTooLargeError:
    """Return the error for a file that exceeds the limit."""
    hint = "store it as OME-Zarr, which is read chunk by chunk"
    if source.rpartition("/")[2] in METADATA:
        hint = "remove consolidated metadata, or use the path of one image of the collection"
    return ImageTooLargeError(f"expected at most {limit} bytes per file, {source} has {size} bytes or more", hint=hint)

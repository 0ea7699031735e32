"""Errors of decoders on damaged files, and their translation.

tifffile, imagecodecs, Pillow, zarr and the bioio readers share no base class for "this file is damaged"; a flipped
byte may surface as almost any built-in error. The list was found by reading mutated files by the thousand.
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from cytoray_analysis.errors import CytorayError, ImageTooLargeError, MissingFileError, UnreadableImageError

DAMAGE: tuple[type[Exception], ...] = (
    ValueError,  # tifffile.TiffFileError, zarr.errors, json and unicode errors
    LookupError,  # missing tags and keys
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    OSError,  # PIL.UnidentifiedImageError, truncated reads
    EOFError,
    RuntimeError,  # imagecodecs: DeflateError, JpegError, …
    ImportError,  # imagecodecs.DelayedImportError: a codec that is not installed
    SyntaxError,  # Pillow on damaged PNG chunks, xml.etree.ElementTree.ParseError
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Turn whatever a decoder raises about `source` into a :class:`CytorayError`.

    Parameters
    ----------
    source
        The file's name, for the message.

    Raises
    ------
    MissingFileError
        The file was removed while it was read.
    ImageTooLargeError
        It did not fit into memory.
    UnreadableImageError
        Anything else: the file is damaged.
    """
    try:
        yield
    except CytorayError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"{source} does not exist: {error}") from error
    except MemoryError as error:
        raise ImageTooLargeError(
            f"{source} does not fit into memory", hint="read it region by region, or crop it"
        ) from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnreadableImageError(
            f"{source} could not be decoded: {reason}",
            hint="the file is damaged, truncated or of another format than its name; save or copy it again",
        ) from error

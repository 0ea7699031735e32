"""Compressed bodies (RFC 9110, section 8.4): decompressed as they arrive, up to a limit."""

from __future__ import annotations

import zlib

from cytoray_analysis.errors import ImageTooLargeError, RequestError

# For zlib.decompressobj: 32 detects gzip or zlib by the first bytes.
_EITHER = 32 + zlib.MAX_WBITS
_CODINGS = ("gzip", "x-gzip", "deflate")


class Unpacking:
    """Decompresses one body.

    Parameters
    ----------
    limit
        Maximum bytes of the decompressed body.
    """

    def __init__(self, limit: int) -> None:
        self._stream = zlib.decompressobj(_EITHER)
        self._left = limit
        self._limit = limit

    def unpack(self, part: bytes, *, last: bool) -> bytes:
        """Return the decompressed bytes of a part.

        Raises
        ------
        ImageTooLargeError
            The body exceeds the limit.
        RequestError
            The body is damaged, or ends too early.
        """
        try:
            plain = self._stream.decompress(part, self._left + 1)
        except zlib.error as error:
            raise RequestError(
                f"expected a body compressed with gzip or zlib, as in Content-Encoding: {error}",
                field="Content-Encoding",
                hint="omit the header for a body that is not compressed",
            ) from error
        self._left -= len(plain)
        if self._left < 0:
            raise ImageTooLargeError(
                f"expected a body of at most {self._limit} bytes after decompression, got more", field="body"
            )
        if self._stream.unused_data or (last and not self._stream.eof):
            raise RequestError(
                "expected a complete compressed body, got one that is cut off or has extra bytes", field="body"
            )
        return plain


def unpacking_of(coding: str | None, limit: int) -> Unpacking | None:
    """Return the decompressor for a Content-Encoding; None for a body that is not compressed.

    Raises
    ------
    RequestError
        The encoding is not supported.
    """
    name = (coding or "identity").strip().lower()
    if name == "identity":
        return None
    if name not in _CODINGS:
        raise RequestError(
            f"expected Content-Encoding to be one of {', '.join(_CODINGS)}, got {name[:80]!r}",
            field="Content-Encoding",
            hint="send the body uncompressed, without the header",
        )
    return Unpacking(limit)

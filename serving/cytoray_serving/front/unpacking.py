"""Bodies that come compressed (RFC 9110, section 8.4): unpacked as they come, and never beyond a limit."""

from __future__ import annotations

import zlib

from cytoray_analysis.errors import ImageTooLargeError, RequestError

# Of zlib.decompressobj: with 32 it tells gzip from zlib by the first bytes.
_EITHER = 32 + zlib.MAX_WBITS
_CODINGS = ("gzip", "x-gzip", "deflate")


class Unpacking:
    """Unpacks one body.

    Parameters
    ----------
    limit
        Bytes of the whole, unpacked.
    """

    def __init__(self, limit: int) -> None:
        self._stream = zlib.decompressobj(_EITHER)
        self._left = limit
        self._limit = limit

    def unpack(self, part: bytes, *, last: bool) -> bytes:
        """Return what a part unfolds to.

        Raises
        ------
        ImageTooLargeError
            It is more than the limit.
        RequestError
            The body is damaged, or ends too early.
        """
        try:
            plain = self._stream.decompress(part, self._left + 1)
        except zlib.error as error:
            raise RequestError(
                f"expected a body that gzip or zlib has packed, as Content-Encoding says: {error}",
                field="Content-Encoding",
                hint="leave the header out for a body that is not packed",
            ) from error
        self._left -= len(plain)
        if self._left < 0:
            raise ImageTooLargeError(
                f"expected a body that unfolds to at most {self._limit} bytes, got more", field="body"
            )
        if self._stream.unused_data or (last and not self._stream.eof):
            raise RequestError("expected a packed body that ends where its data end, got less or more", field="body")
        return plain


def unpacking_of(coding: str | None, limit: int) -> Unpacking | None:
    """Return what unpacks a body of that Content-Encoding; None for one that is not packed.

    Raises
    ------
    RequestError
        It is packed otherwise.
    """
    name = (coding or "identity").strip().lower()
    if name == "identity":
        return None
    if name not in _CODINGS:
        raise RequestError(
            f"expected Content-Encoding to be one of {', '.join(_CODINGS)}, got {name[:80]!r}",
            field="Content-Encoding",
            hint="send the body as it is, without the header",
        )
    return Unpacking(limit)

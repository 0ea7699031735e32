"""The body of an answer: in memory, or on disk if its caller reads too slowly."""

from __future__ import annotations

import tempfile
from typing import BinaryIO


class AnswerBody:
    """An answer that is read in pieces.

    Parameters
    ----------
    content
        The whole answer. The caller should not keep a reference to it.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._file: BinaryIO | None = None
        self.size = len(content)

    def piece(self, start: int, size: int) -> bytes:
        """Return at most `size` bytes from `start` on."""
        if self._file is None:
            return self._content[start : start + size]
        self._file.seek(start)
        return self._file.read(size)

    def written(self) -> BinaryIO:
        """Return an unnamed temporary file with the answer.

        Raises
        ------
        OSError
            It cannot be written.
        """
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        try:
            file.write(self._content)
            file.flush()
        except OSError:
            file.close()
            raise
        return file

    def read_from(self, file: BinaryIO) -> None:
        """Return pieces from a file from now on, and free the memory."""
        if self._content:
            self._file, self._content = file, b""
        else:  # it was closed while the file was written
            file.close()

    @property
    def in_memory(self) -> int:
        """Bytes in memory."""
        return len(self._content)

    def close(self) -> None:
        """Discard the rest."""
        self._content = b""
        if self._file is not None:
            self._file.close()

"""Server-sent events, as in the HTML standard: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MEDIA_TYPE = "text/event-stream"


@dataclass(frozen=True)
class ServerEvent:
    """One event of a stream.

    Attributes
    ----------
    data
        The lines of its data, joined by line feeds.
    kind
        Its name; ``message`` by default.
    id
        The last ID in the stream, which a client sends as ``Last-Event-ID`` when it reconnects.
    """

    data: str
    kind: str = "message"
    id: str = ""


def read_events(pieces: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Read the events of a stream.

    Comments, which keep a connection alive, unknown fields, events without data, and an incomplete event at the end
    are ignored.

    Parameters
    ----------
    pieces
        The bytes of the stream, in pieces of any length.
    """
    data: list[str] = []
    kind = last_id = ""
    for line in _lines(pieces):
        if not line:
            if data:
                yield ServerEvent("\n".join(data), kind or "message", last_id)
            data, kind = [], ""
            continue
        name, _, value = line.partition(":")  # a comment has no name
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield complete lines, which end only with CR LF, LF or CR: JSON may contain U+2028."""
    rest, after_return, first = b"", False, True
    for piece in pieces:
        if not piece:
            continue
        rest += piece.removeprefix(b"\n") if after_return else piece
        after_return = rest.endswith(b"\r")
        *lines, rest = rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            yield text.removeprefix("\ufeff") if first else text
            first = False

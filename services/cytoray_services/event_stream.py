"""Server-sent events, read as the HTML standard says: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

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
        Its name; ``message`` where the server gives none.
    id
        The last id that the stream named, which a caller sends as ``Last-Event-ID`` when it comes back.
    """

    data: str
    kind: str = "message"
    id: str = ""


def read_events(pieces: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Read the events of a stream.

    Comments, which servers send to keep a connection alive, unknown fields, and events without data are passed over; so
    is what follows the last empty line, for it was not sent whole.

    Parameters
    ----------
    pieces
        The bytes of the stream, cut anywhere.
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
    """Yield whole lines, which end with CR LF, LF or CR and with nothing else: JSON may hold U+2028 as it is."""
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

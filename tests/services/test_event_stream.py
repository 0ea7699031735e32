"""Server-sent events are read as the HTML standard says."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_services.http.event_stream import ServerEvent, read_events


def events(stream: str | bytes) -> list[ServerEvent]:
    return list(read_events([stream.encode() if isinstance(stream, str) else stream]))


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("data: a\n\n", [ServerEvent("a")]),
        ("event: done\nid: 7\ndata: a\n\n: ping\n\n", [ServerEvent("a", "done", "7")]),
        (": ping\n\n\n\ndata:a\n\n:\n\n", [ServerEvent("a")]),
        ("data: a\ndata:  b\ndata\n\n", [ServerEvent("a\n b\n")]),
        ("event: x\n\ndata: a\n\n", [ServerEvent("a")]),
        ("id: 1\ndata: a\n\ndata: b\n\n", [ServerEvent("a", id="1"), ServerEvent("b", id="1")]),
        ("id: 1\ndata: a\n\nid\ndata: b\n\n", [ServerEvent("a", id="1"), ServerEvent("b")]),
        ("id: 1\0\ndata: a\n\n", [ServerEvent("a")]),
        ("retry: 10\ncolour: red\nDATA: no\ndata: a\n\n", [ServerEvent("a")]),
        ("data: a\r\n\r\ndata: b\r\rdata: c\n\n", [ServerEvent("a"), ServerEvent("b"), ServerEvent("c")]),
        ("\ufeffdata: a\n\n", [ServerEvent("a")]),
        ("data: a\n\ndata: cut off\n", [ServerEvent("a")]),
        ("data: \u2028 \x85 \x0b\n\n", [ServerEvent("\u2028 \x85 \x0b")]),
        ("", []),
    ],
)
def test_events_are_read(stream: str, expected: list[ServerEvent]) -> None:
    assert events(stream) == expected


@given(
    st.lists(st.tuples(st.sampled_from(["running", "done"]), st.text(max_size=20)), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 300), max_size=12),
)
def test_events_do_not_depend_on_how_the_stream_is_cut(sent: list[tuple[str, str]], end: str, cuts: list[int]) -> None:
    stream = "".join(
        f": ping{end}{end}event: {kind}{end}data: {json.dumps(text, ensure_ascii=False)}{end}{end}"
        for kind, text in sent
        if "\r" not in json.dumps(text, ensure_ascii=False)
    ).encode(errors="surrogatepass")
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:stop] for start, stop in pairwise(places)]
    assert list(read_events(pieces)) == list(read_events([stream]))
    assert [(one.kind, json.loads(one.data)) for one in read_events(pieces)] == sent


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_none(stream: bytes) -> None:
    assert all(isinstance(one.data, str) for one in read_events([stream]))

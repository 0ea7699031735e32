"""Streams text from blocking code while a reader is connected."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterator
from typing import TypeVar

from cytoray_analysis.errors import OverloadedError
from cytoray_analysis.uris import without_secrets

T = TypeVar("T")


class Followers:
    """Limits the number of followed logs, with a quarter of them for one caller.

    A log may have no output for hours. So the wait for each piece has its own thread, which blocks neither other
    requests nor the end of the service. After a disconnect the thread remains, and counts, until the log yields a
    piece, which is empty without output.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._now: Counter[str] = Counter()

    def follow(self, source: Iterator[str], who: str) -> AsyncIterable[str]:
        """Return an iterator over the pieces; it counts from now on.

        Raises
        ------
        OverloadedError
            The limit of all callers or of one caller is reached.
        """
        own = max(1, self._most // 4)
        if self._now[who] >= own:
            raise OverloadedError(
                f"expected at most {own} followed logs of {who}, got one more", hint="end one, or try again later"
            )
        if self._now.total() >= self._most:
            raise OverloadedError(f"expected at most {self._most} followed logs, got one more", hint="try again later")
        self._now[who] += 1
        return _Followed(self, source, who)

    async def pieces_of(self, source: Iterator[str], who: str) -> AsyncIterator[str]:
        """Yield pieces without secrets of addresses, and count one less at the end."""
        pieces = _closable(source)
        piece: asyncio.Future[str | None] | None = None
        try:
            while True:
                piece = _in_thread(lambda: next(pieces, None))
                text = await asyncio.shield(piece)
                if text is None:
                    return
                if text:
                    yield without_secrets(text)
        finally:
            if piece is None or piece.done():
                self._leave(pieces, who)
            else:
                piece.add_done_callback(lambda _: self._leave(pieces, who))

    def leave(self, who: str) -> None:
        """Count one less."""
        self._now -= Counter((who,))  # which removes callers without logs

    def _leave(self, pieces: Generator[str], who: str) -> None:
        _in_thread(pieces.close).add_done_callback(lambda _: self.leave(who))


class _Followed:
    """One followed log; it also stops counting if the caller disconnects before reading."""

    def __init__(self, followers: Followers, source: Iterator[str], who: str) -> None:
        self._followers, self._source, self._who = followers, source, who
        self._begun = False

    def __aiter__(self) -> AsyncIterator[str]:
        self._begun = True
        return self._followers.pieces_of(self._source, self._who)

    def __del__(self) -> None:
        if not self._begun:
            self._followers.leave(self._who)


def _closable(source: Iterator[str]) -> Generator[str]:
    yield from source


def _in_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Call a function in a thread that dies with the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # there may be no reader left

    def tell(change: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the service has ended in the meantime
            loop.call_soon_threadsafe(lambda: None if future.done() else change())

    def run() -> None:
        try:
            result = function()
        except Exception as caught:  # noqa: BLE001 - raised when the future is awaited
            error = caught
            tell(lambda: future.set_exception(error))
        else:
            tell(lambda: future.set_result(result))

    threading.Thread(target=run, daemon=True, name="follower").start()
    return future

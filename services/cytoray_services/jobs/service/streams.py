"""Text that comes bit by bit out of blocking code, for as long as somebody listens."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterator
from typing import TypeVar

from cytoray_analysis.errors import OverloadedError

T = TypeVar("T")


class Followers:
    """Lets so many logs be followed at a time.

    A log may say nothing for hours. Each piece is therefore waited for in a thread of its own, which holds up neither
    other requests nor the end of the service. Who goes away leaves the thread behind until the log says something, and
    counts for so long.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._now = 0

    def follow(self, source: Iterator[str]) -> AsyncIterable[str]:
        """Return what gives pieces as they come; it counts from now on.

        Raises
        ------
        OverloadedError
            As many are followed as may be.
        """
        if self._now >= self._most:
            raise OverloadedError(f"{self._most} logs are being read, as many as may be", hint="ask again later")
        self._now += 1
        return _Followed(self, source)

    async def pieces_of(self, source: Iterator[str]) -> AsyncIterator[str]:
        """Yield pieces as they come, and count one less at the end."""
        pieces = _closable(source)
        piece: asyncio.Future[str | None] | None = None
        try:
            while True:
                piece = _in_thread(lambda: next(pieces, None))
                told = await asyncio.shield(piece)
                if told is None:
                    return
                yield told
        finally:
            if piece is None or piece.done():
                self._leave(pieces)
            else:
                piece.add_done_callback(lambda _: self._leave(pieces))

    def leave(self) -> None:
        """Count one less."""
        self._now -= 1

    def _leave(self, pieces: Generator[str]) -> None:
        _in_thread(pieces.close).add_done_callback(lambda _: self.leave())


class _Followed:
    """One log that is followed; who never begins to read it, because the caller has gone, counts no longer either."""

    def __init__(self, followers: Followers, source: Iterator[str]) -> None:
        self._followers, self._source = followers, source
        self._begun = False

    def __aiter__(self) -> AsyncIterator[str]:
        self._begun = True
        return self._followers.pieces_of(self._source)

    def __del__(self) -> None:
        if not self._begun:
            self._followers.leave()


def _closable(source: Iterator[str]) -> Generator[str]:
    yield from source


def _in_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Call a function in a thread that dies with the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to ask for it

    def tell(change: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the service has ended meanwhile
            loop.call_soon_threadsafe(lambda: None if future.done() else change())

    def run() -> None:
        try:
            result = function()
        except Exception as caught:  # noqa: BLE001 - it is raised where the future is awaited
            error = caught
            tell(lambda: future.set_exception(error))
        else:
            tell(lambda: future.set_result(result))

    threading.Thread(target=run, daemon=True, name="follower").start()
    return future

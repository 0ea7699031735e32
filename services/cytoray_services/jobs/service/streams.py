"""Text that comes bit by bit out of blocking code, for as long as somebody listens."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
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

    def require_room(self) -> None:
        """Refuse one more where there are as many as may be.

        Raises
        ------
        OverloadedError
            There are.
        """
        if self._now >= self._most:
            raise OverloadedError(f"{self._most} logs are being read, as many as may be", hint="ask again later")

    async def follow(self, source: Iterator[str]) -> AsyncIterator[str]:
        """Yield pieces as they come."""
        self._now += 1
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

    def _leave(self, pieces: Generator[str]) -> None:
        def left(_: asyncio.Future[None]) -> None:
            self._now -= 1

        _in_thread(pieces.close).add_done_callback(left)


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

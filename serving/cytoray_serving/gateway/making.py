"""The work of a gateway before a question is queued: reading tensors, and fetching files by URI.

Both need memory and threads that the limit of queued megapixels does not include. So only a few questions are created
at a time, at most half of them for one caller, and each counts as a queued request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakValueDictionary

from cytoray_services.tokens.access import Caller
from cytoray_serving.front.rules import HeldBytes
from cytoray_serving.gateway.waiting import Waiting

T = TypeVar("T")
_READ_AT_ONCE = 2  # they hold the GIL most of the time, so more of them are not faster
_FETCHED_AT_ONCE = 4


class Turns:
    """A pool of threads with a limit per caller.

    Parameters
    ----------
    most
        Maximum concurrent work; half of it for one caller.
    """

    def __init__(self, most: int) -> None:
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="turn")
        self._most = max(1, most // 2)
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def run(self, caller: str, work: Callable[[], T]) -> T:
        """Run work in a thread in turn; the turn lasts until the thread is free again."""
        async with self._own.setdefault(caller, asyncio.Semaphore(self._most)):
            begun = self._threads.submit(work)
            done = asyncio.wrap_future(begun)
            try:
                return await asyncio.shield(done)
            except asyncio.CancelledError:
                if not begun.cancel():
                    await asyncio.wait([done])
                    done.exception()  # retrieved, or asyncio would log it: the caller has disconnected
                raise


class Making:
    """Creates questions.

    Parameters
    ----------
    waiting
        Counts the queued requests.
    most
        Maximum number of bytes of all concurrent requests and answers.

    Attributes
    ----------
    bodies
        Counts these bytes for all interfaces.
    """

    def __init__(self, waiting: Waiting, most: int) -> None:
        self.bodies = HeldBytes(most)
        self._waiting = waiting
        self._reading, self._fetching = Turns(_READ_AT_ONCE), Turns(_FETCHED_AT_ONCE)

    async def run(self, model: str, make: Callable[[], T], caller: Caller, *, fetching: bool) -> T:
        """Create a question to a model for a caller.

        Parameters
        ----------
        fetching
            Whether this waits for other machines instead of computing.

        Raises
        ------
        CytorayError
            The queue is full, or an error of `make`.
        """
        with self._waiting.request(model, 0.0, caller):
            return await (self._fetching if fetching else self._reading).run(caller.name, make)

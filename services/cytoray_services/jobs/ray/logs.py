"""Follows the log of a Ray job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

_SILENT_SECONDS = 30.0


def followed(lines: AsyncIterator[str]) -> Iterator[str]:
    """Yield the pieces of a log until it ends, and an empty one after each half minute without output.

    So a reader can stop, also during a log without output.
    """

    async def following() -> str | None:
        return await anext(lines, None)

    loop = asyncio.new_event_loop()
    awaited = loop.create_task(following())
    try:
        while True:
            loop.run_until_complete(asyncio.wait((awaited,), timeout=_SILENT_SECONDS))
            if not awaited.done():
                yield ""
                continue
            piece = awaited.result()
            if piece is None:
                return
            yield piece
            awaited = loop.create_task(following())
    finally:
        awaited.cancel()
        loop.run_until_complete(asyncio.wait((awaited,)))
        loop.run_until_complete(lines.aclose())  # type: ignore[attr-defined]
        loop.close()

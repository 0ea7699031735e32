"""How many logs are followed at a time."""

from __future__ import annotations

import asyncio
import gc

import pytest

from cytoray_analysis.errors import OverloadedError
from cytoray_services.jobs.service.streams import Followers


@pytest.mark.slow
def test_who_never_begins_to_read_counts_no_longer() -> None:
    async def ask() -> list[str]:
        followers = Followers(1)
        followed = followers.follow(iter(["a"]), "ada")
        with pytest.raises(OverloadedError):
            followers.follow(iter([]), "ada")
        del followed
        gc.collect()
        read = [piece async for piece in followers.follow(iter(["b", "", "c"]), "ada")]
        for _ in range(100):  # it is let go in a thread
            await asyncio.sleep(0.02)
            try:
                followers.follow(iter([]), "ada")
            except OverloadedError:
                continue
            return read
        pytest.fail("it still counts")

    assert asyncio.run(ask()) == ["b", "c"]

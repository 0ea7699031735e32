"""Following the log of a job of Ray: an empty piece comes while it says nothing, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from cytoray_services.jobs.ray import logs as ray_logs


def test_a_log_that_says_nothing_gives_empty_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_logs, "_SILENT_SECONDS", 0.05)
    closed: list[bool] = []

    async def lines() -> AsyncGenerator[str]:
        try:
            yield "one"
            await asyncio.sleep(0.3)
            yield "two"
        finally:
            closed.append(True)

    pieces = list(ray_logs.followed(lines()))
    assert [one for one in pieces if one] == ["one", "two"]
    assert 2 <= pieces.count("") <= 8
    left = ray_logs.followed(lines())
    assert [next(left), next(left)] == ["one", ""]
    left.close()  # type: ignore[attr-defined]
    assert closed == [True, True]


def test_what_breaks_a_log_is_raised() -> None:
    async def lines() -> AsyncGenerator[str]:
        yield "one"
        raise RuntimeError("it broke off")

    with pytest.raises(RuntimeError, match="it broke off"):
        list(ray_logs.followed(lines()))

"""Compiled functions work where their machine code cannot be kept."""

from __future__ import annotations

import pytest

from cytoray_analysis.compiled import compiled


def double(value: int) -> int:
    return 2 * value


def test_a_function_is_compiled_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert compiled(double)(21) == 42


def test_another_fault_of_the_compiler_is_not_hidden() -> None:
    with pytest.raises(TypeError):
        compiled(42)  # type: ignore[arg-type]

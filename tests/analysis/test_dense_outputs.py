"""Dense outputs are the same in memory and in a file, and a full disk is told before the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.errors import PlatformError
from cytoray_analysis.inference.dense_outputs import dense_outputs

SHAPE = (2, 30, 40)


@pytest.mark.parametrize("in_memory", [0, 2**20])
def test_what_is_written_is_read(in_memory: int, tmp_path: Path) -> None:
    expected = np.random.default_rng(0).random(SHAPE, np.float32)
    with dense_outputs(SHAPE, in_memory=in_memory, folder=tmp_path) as view:
        assert bool(list(tmp_path.iterdir())) == (in_memory == 0)
        view()[:, :16] = expected[:, :16]
        view()[:, 16:] = expected[:, 16:]
        assert np.array_equal(view(), expected)
    assert not list(tmp_path.iterdir())


def test_too_full_a_disk_is_reported_first(tmp_path: Path) -> None:
    with (
        pytest.raises(PlatformError, match="GiB of free disk"),
        dense_outputs((3, 2**24, 2**24), in_memory=0, folder=tmp_path),
    ):
        pass
    assert not list(tmp_path.iterdir())

"""A picture stored with fewer bits is the same picture; another field is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cytoray_analysis.fine_structure import fine_structure, is_linear_copy


def field(seed: int, low: int = 200, high: int = 4000) -> NDArray[np.uint16]:
    chance = np.random.default_rng(seed)
    smooth = gaussian_filter(chance.random((96, 96)), 3.0)
    light = np.hypot(*np.mgrid[-1:1:96j, -1:1:96j])  # of the lamp, the same in all fields
    picture = (smooth - smooth.min()) / np.ptp(smooth) - 0.4 * light + 0.6
    values: NDArray[np.float64] = low + (high - low) * picture / 1.6 + chance.normal(0, 15, picture.shape)
    return values.clip(0).astype(np.uint16)


COPIES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "8 bits of 16": lambda v: (v >> 8).astype(np.uint8),
    "8 bits of 12": lambda v: (v >> 4).astype(np.uint8),
    "by 257": lambda v: (v / 257).astype(np.uint8),
    "range to 8 bits": lambda v: np.round((v - v.min()) / np.ptp(v) * 255).astype(np.uint8),
    "percentiles to 8 bits": lambda v: np.clip((v - np.quantile(v, 0.01)) / np.ptp(v) * 280, 0, 255).astype(np.uint8),
    "float32": lambda v: (v / 65535).astype(np.float32),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_another_bit_depth_is_found(name: str) -> None:
    whole = field(0)
    copy = COPIES[name](whole)
    details = fine_structure(whole.astype(np.float32)), fine_structure(copy.astype(np.float32))
    assert float((details[0] * details[1]).sum()) > 0.9
    assert is_linear_copy(whole, copy)
    assert is_linear_copy(copy, whole)


@pytest.mark.parametrize("seed", range(1, 9))
def test_another_field_under_the_same_light_is_no_copy(seed: int) -> None:
    one, other = field(0), field(seed)
    assert float((fine_structure(one.astype(np.float32)) * fine_structure(other.astype(np.float32))).sum()) < 0.5
    assert not is_linear_copy(one, other)
    assert not is_linear_copy(one, (other >> 4).astype(np.uint8))


def test_a_second_exposure_of_one_field_is_no_copy() -> None:
    chance = np.random.default_rng(5)
    again = (field(0) + chance.normal(0, 25, (96, 96))).clip(0).astype(np.uint16)
    assert not is_linear_copy(field(0), again)

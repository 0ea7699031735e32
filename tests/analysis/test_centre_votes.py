"""Votes become objects, and the same ones however the image is cut."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cytoray_analysis.numbering import Numbering
from cytoray_analysis.tasks.centre_votes import VotingParameters, decode_votes, reach_of_decoding
from cytoray_analysis.tiles import tile_region, whole

Dense = tuple[NDArray[np.float32], NDArray[np.float32]]
SMALL = VotingParameters(votes=4, separation=2, capture=3, smallest=4, reach=6)


def discs(shape: tuple[int, ...], centres: list[tuple[int, ...]], radius: int) -> Dense:
    """Perfect outputs for balls of one radius."""
    position = np.stack(np.meshgrid(*(np.arange(length) for length in shape), indexing="ij")).astype(np.float32)
    foreground = np.full(shape, -5, np.float32)
    offsets = np.zeros((len(shape), *shape), np.float32)
    nearest = np.full(shape, np.inf)
    for centre in centres:
        away = np.array(centre, np.float32).reshape(-1, *(1,) * len(shape)) - position
        distance = np.sqrt((away**2).sum(0))
        closer = (distance <= radius) & (distance < nearest)
        nearest[closer] = distance[closer]
        foreground[closer] = 5
        offsets[:, closer] = away[:, closer]
    return foreground, offsets


def test_touching_discs_are_told_apart() -> None:
    foreground, offsets = discs((40, 60), [(20, 20), (20, 31), (8, 50)], 6)
    labels, identities = decode_votes(foreground, offsets, SMALL)
    assert labels.max() == 3
    assert labels[20, 20] != labels[20, 31]
    assert (labels > 0).sum() == (foreground > 0).sum()
    assert [int(identity) - 1 for identity in identities[1:]] == [8 * 60 + 50, 20 * 60 + 20, 20 * 60 + 31]


def test_balls_in_a_volume_are_told_apart() -> None:
    foreground, offsets = discs((20, 30, 30), [(8, 8, 8), (8, 8, 18), (15, 22, 22)], 5)
    labels, _ = decode_votes(foreground, offsets, SMALL)
    assert labels.max() == 3
    assert (labels > 0).sum() == (foreground > 0).sum()


def test_an_empty_image_has_no_objects() -> None:
    labels, identities = decode_votes(np.full((9, 7), -1, np.float32), np.zeros((2, 9, 7), np.float32), SMALL)
    assert labels.max() == 0
    assert identities.tolist() == [0]


def test_specks_are_dropped() -> None:
    foreground, offsets = discs((20, 20), [(10, 10)], 1)
    labels, _ = decode_votes(foreground, offsets, VotingParameters(votes=1, smallest=6))
    assert labels.max() == 0


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    core=st.integers(8, 40),
    smoothness=st.sampled_from([1, 3, 7]),
    shape=st.tuples(st.integers(40, 90), st.integers(40, 90)),
)
def test_blocks_give_the_objects_of_the_whole(seed: int, core: int, smoothness: int, shape: tuple[int, int]) -> None:
    """Also for outputs that no trained network would give: noise everywhere, offsets beyond their limit."""
    random = np.random.default_rng(seed)
    coarse = random.normal(size=(3, shape[0] // smoothness + 1, shape[1] // smoothness + 1)).astype(np.float32)
    dense = coarse.repeat(smoothness, axis=1).repeat(smoothness, axis=2)[:, : shape[0], : shape[1]]
    foreground, offsets = dense[0] + 0.5, dense[1:] * 5
    expected, identities = decode_votes(foreground, offsets, SMALL)
    numbering = Numbering()
    answer = np.zeros(shape, np.int32)
    for tile in tile_region(whole(shape), shape, (core, core), reach_of_decoding(SMALL)):
        labels, names = decode_votes(
            foreground[tile.outer],
            offsets[(slice(None), *tile.outer)],
            SMALL,
            origin=tuple(part.start for part in tile.outer),
            frame=shape,
        )
        answer[tile.core] = numbering.number(labels[tile.inner], names)
    ranks = numbering.ranks()
    answer = answer if ranks is None else ranks[answer]
    assert numbering.count == len(identities) - 1
    assert np.array_equal(answer, expected)

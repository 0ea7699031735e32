"""Votes become objects, and the same ones however the image is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cytoray_analysis.numbering import Numbering
from cytoray_analysis.tasks.centre_votes import VotingParameters, decode_votes, reach_of_decoding
from cytoray_analysis.tiles import tile_region, whole

Dense = tuple[NDArray[np.float32], NDArray[np.float32]]
SMALL = VotingParameters(votes=4, separation=2, capture=3, smallest=4, reach=6)
# Distances that grow with the object, by up to a quarter of the reach.
GROWING = VotingParameters(votes=4, separation=1, capture=1, smallest=4, reach=12, radius_share=0.7, probability=0.62)


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


@pytest.mark.slow
def test_touching_discs_are_distinguished() -> None:
    foreground, offsets = discs((40, 60), [(20, 20), (20, 31), (8, 50)], 6)
    labels, identities, _ = decode_votes(foreground, offsets, SMALL)
    assert labels.max() == 3
    assert labels[20, 20] != labels[20, 31]
    assert (labels > 0).sum() == (foreground > 0).sum()
    assert [int(identity) - 1 for identity in identities[1:]] == [8 * 60 + 50, 20 * 60 + 20, 20 * 60 + 31]


def test_balls_in_a_volume_are_distinguished() -> None:
    foreground, offsets = discs((20, 30, 30), [(8, 8, 8), (8, 8, 18), (15, 22, 22)], 5)
    labels, _, _ = decode_votes(foreground, offsets, SMALL)
    assert labels.max() == 3
    assert (labels > 0).sum() == (foreground > 0).sum()


def test_an_empty_image_has_no_objects() -> None:
    labels, identities, confidence = decode_votes(
        np.full((9, 7), -1, np.float32), np.zeros((2, 9, 7), np.float32), SMALL
    )
    assert labels.max() == 0
    assert identities.tolist() == confidence.tolist() == [0]


def test_specks_are_dropped() -> None:
    foreground, offsets = discs((20, 20), [(10, 10)], 1)
    labels, _, _ = decode_votes(foreground, offsets, VotingParameters(votes=1, smallest=6))
    assert labels.max() == 0


def test_the_distance_between_peaks_grows_with_the_object() -> None:
    """The halves of a wide object vote for points 10 pixels apart; two small objects lie nearer each other."""
    wide, offsets = discs((90, 90), [(45, 45)], 30)
    offsets[1] += np.where(np.arange(90) < 45, -5, 5)
    small, small_offsets = discs((20, 20), [(10, 6), (10, 12)], 2)

    def found(radius_share: float) -> tuple[int, int]:
        parameters = VotingParameters(votes=4, separation=2, capture=4, smallest=4, radius_share=radius_share)
        first, second = decode_votes(wide, offsets, parameters), decode_votes(small, small_offsets, parameters)
        return int(first[0].max()), int(second[0].max())

    assert found(0.0) == (2, 2)
    assert found(0.5) == (1, 2)


def test_the_distance_in_a_volume_follows_the_radius_of_a_ball_of_its_pixels() -> None:
    foreground, offsets = discs((60, 60, 60), [(30, 30, 30), (30, 30, 44)], 20)
    assert decode_votes(foreground, offsets, VotingParameters(votes=4, separation=2, radius_share=0.5))[0].max() == 2
    assert decode_votes(foreground, offsets, VotingParameters(votes=4, separation=2, radius_share=0.8))[0].max() == 1


def test_faint_objects_are_dropped() -> None:
    foreground, offsets = discs((20, 40), [(10, 10), (10, 30)], 5)
    foreground[:, 20:] /= 5
    faint = 1 / (1 + np.exp(-1))
    for probability, objects in ((0.0, 2), (faint - 0.01, 2), (faint + 0.01, 1)):
        labels, identities, _ = decode_votes(foreground, offsets, VotingParameters(probability=probability))
        assert labels.max() == len(identities) - 1 == objects
    assert labels[10, 10] == 1


def test_flat_volumes_are_measured_with_the_length_of_their_pixels() -> None:
    """Two cells one above the other, four planes apart: far enough where planes are three pixels apart, else not."""
    foreground = np.full((9, 15, 15), -5, np.float32)
    foreground[1:8, 4:11, 4:11] = 5
    offsets = np.zeros((3, 9, 15, 15), np.float32)
    position = np.stack(np.meshgrid(np.arange(9), np.arange(15), np.arange(15), indexing="ij"))
    offsets[0] = np.where(position[0] < 4, 2, 6) - position[0]
    offsets[1:] = 7 - position[1:]
    square = VotingParameters(votes=4, separation=6, capture=8, smallest=4, reach=9)
    flat = VotingParameters(votes=4, separation=6, capture=8, smallest=4, reach=9, anisotropy=3.0)
    assert decode_votes(foreground, offsets, square)[0].max() == 1
    labels, _, _ = decode_votes(foreground, offsets, flat)
    assert labels.max() == 2
    assert sorted(np.bincount(labels.ravel())[1:]) == [3 * 49, 4 * 49]
    assert reach_of_decoding(square, 3) == (58, 58, 58)
    assert reach_of_decoding(flat, 3) == (3 * 3 + 3 + 6 + 2 + 1, 58, 58)
    assert reach_of_decoding(square, 2) == (58, 58)


def test_an_object_whose_votes_agree_is_surer_than_one_whose_votes_scatter() -> None:
    foreground, offsets = discs((30, 60), [(15, 15), (15, 44)], 6)
    random = np.random.default_rng(0)
    offsets[:, :, 30:] += random.normal(0, 2.5, offsets[:, :, 30:].shape)
    labels, _, confidence = decode_votes(foreground, offsets, VotingParameters(reach=20))
    assert confidence.dtype == np.float32
    sure, unsure = confidence[labels[15, 15]], confidence[labels[15, 44]]
    assert sure == pytest.approx(1 / (1 + np.exp(-5)), abs=1e-6)
    assert 0 < unsure < 0.7 * sure
    faint, _, fainter = decode_votes(foreground / np.float32(5), offsets, VotingParameters(reach=20))
    assert fainter[faint[15, 15]] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)


Cut = tuple[NDArray[np.int32], NDArray[np.float32]]


def decode_in_blocks(
    foreground: NDArray[np.float32], offsets: NDArray[np.float32], parameters: VotingParameters, core: tuple[int, ...]
) -> Cut:
    """Decode block by block, each with the margin that decoding asks for."""
    shape = foreground.shape
    numbering = Numbering()
    answer = np.zeros(shape, np.int32)
    for tile in tile_region(whole(shape), shape, core, reach_of_decoding(parameters, len(shape))):
        labels, names, confidence = decode_votes(
            foreground[tile.outer],
            offsets[(slice(None), *tile.outer)],
            parameters,
            origin=tuple(part.start for part in tile.outer),
            frame=shape,
        )
        answer[tile.core] = numbering.number(labels[tile.inner], names, confidence)
    ranks = numbering.ranks()
    return answer if ranks is None else ranks[answer], numbering.confidence()


def noise(seed: int, channels: int, shape: tuple[int, ...], smoothness: int) -> NDArray[np.float32]:
    coarse_shape = tuple(side // smoothness + 1 for side in shape)
    dense = np.random.default_rng(seed).normal(size=(channels, *coarse_shape)).astype(np.float32)
    for axis in range(len(shape)):
        dense = dense.repeat(smoothness, axis=axis + 1)
    return dense[(slice(None), *(slice(0, side) for side in shape))]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    core=st.integers(8, 40),
    smoothness=st.sampled_from([1, 3, 7]),
    shape=st.tuples(st.integers(40, 90), st.integers(40, 90)),
    parameters=st.sampled_from([SMALL, GROWING]),
)
def test_blocks_give_the_objects_of_the_whole(
    seed: int, core: int, smoothness: int, shape: tuple[int, int], parameters: VotingParameters
) -> None:
    """Also for outputs that no trained network would give: noise everywhere, offsets beyond their limit."""
    dense = noise(seed, 3, shape, smoothness)
    foreground, offsets = dense[0] + 0.5, dense[1:] * 5
    expected, identities, confidence = decode_votes(foreground, offsets, parameters)
    answer, surenesses = decode_in_blocks(foreground, offsets, parameters, (core, core))
    assert len(surenesses) == len(identities)
    assert np.array_equal(answer, expected)
    assert np.array_equal(surenesses, confidence)


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    core=st.tuples(st.integers(3, 12), st.integers(6, 20), st.integers(6, 20)),
    smoothness=st.sampled_from([1, 3]),
    anisotropy=st.sampled_from([1.0, 2.18, 3.0]),
)
def test_blocks_of_volumes_give_the_objects_of_the_whole(
    seed: int, core: tuple[int, int, int], smoothness: int, anisotropy: float
) -> None:
    parameters = VotingParameters(
        votes=4, separation=1, capture=1, smallest=4, reach=8, anisotropy=anisotropy, radius_share=0.5
    )
    dense = noise(seed, 4, (26, 44, 41), smoothness)
    foreground, offsets = dense[0], dense[1:] * 3
    expected, _, confidence = decode_votes(foreground, offsets, parameters)
    answer, surenesses = decode_in_blocks(foreground, offsets, parameters, core)
    assert expected.max() > 20
    assert np.array_equal(answer, expected)
    assert np.array_equal(surenesses, confidence)

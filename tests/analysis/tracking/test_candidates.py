from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from skimage.measure import regionprops_table

from cytoray_analysis.errors import AxesError, DatasetError
from cytoray_analysis.images import image_from_array
from cytoray_analysis.tracking.candidates import FEATURES, feature_names, find_candidates
from cytoray_analysis.tracking.examples import match_tracks, training_examples
from cytoray_analysis.tracking.objects import measure, shared_pixels


def blobs(seed: int, *, shape: tuple[int, ...] = (90, 110), count: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Ellipsoids that do not overlap, with random numbers, and an image."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint16)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    for label in rng.permutation(np.arange(3, 3 + count)):
        centre = rng.uniform(0, shape)
        inside = (((grid - centre) / rng.uniform(3, 8, len(shape))) ** 2).sum(axis=-1) <= 1
        mask[inside & (mask == 0)] = label
    return mask, rng.normal(100, 10, shape).astype(np.float32) + 20 * (mask > 0)


@pytest.mark.parametrize("shape", [(90, 110), (12, 40, 50)])
def test_measurements_are_those_of_scikit_image(shape: tuple[int, ...]) -> None:
    mask, image = blobs(1, shape=shape)
    found = measure(mask, image, offset=50.0, scale=0.1)
    wanted = regionprops_table(  # type: ignore[no-untyped-call]
        mask, image, properties=("label", "area", "centroid", "bbox", "intensity_mean", "intensity_std")
    )
    order = np.argsort(found.labels)
    axes = len(shape)
    assert np.array_equal(found.labels[order], wanted["label"])
    assert np.array_equal(found.size[order], wanted["area"])
    assert np.allclose(found.centroid[order], np.stack([wanted[f"centroid-{a}"] for a in range(axes)], axis=1))
    box = np.stack([wanted[f"bbox-{a}"] for a in range(2 * axes)], axis=1).reshape(-1, 2, axes)
    assert np.array_equal(found.box[order], box)
    assert np.allclose(found.mean[order], (wanted["intensity_mean"] - 50) * 0.1, rtol=1e-5)
    assert np.allclose(found.deviation[order], wanted["intensity_std"] * 0.1, rtol=1e-4)


def test_elongation_is_that_of_an_ellipse_in_any_direction() -> None:
    y, x = np.mgrid[:101, :101] - 50.0
    for angle in (0.0, 0.7, 2.2):
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        found = measure(((along / 36) ** 2 + (across / 12) ** 2 <= 1).astype(np.uint8))
        assert found.elongation[0] == pytest.approx(3.0, rel=0.03)
        assert abs(found.direction[0] @ [np.sin(angle), np.cos(angle)]) == pytest.approx(1.0, abs=1e-3)


def test_flat_pixels_are_measured_in_isotropic_units() -> None:
    z, y, x = np.mgrid[:11, :41, :41]
    ball = ((z - 5) * 4) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 <= 16**2
    found = measure(ball.astype(np.uint8), spacing=(4.0, 1.0, 1.0))
    assert found.elongation[0] == pytest.approx(1.0, abs=0.05)
    assert found.radius[0] == pytest.approx(16, rel=0.03)
    assert found.place[0].tolist() == pytest.approx([20.0, 20.0, 20.0])


def test_shared_pixels_are_counted() -> None:
    (one, _), (two, _) = blobs(2), blobs(3)
    first, second = measure(one), measure(two)
    source, target = (a.ravel() for a in np.mgrid[: len(first), : len(second)])
    found = shared_pixels(first, second, source, target)
    wanted = [
        int(np.count_nonzero((one == first.labels[i]) & (two == second.labels[j])))
        for i, j in zip(source, target, strict=True)
    ]
    assert found.tolist() == wanted
    assert max(wanted) > 0


def test_huge_numbers_in_masks_are_kept() -> None:
    mask = np.zeros((20, 20), np.uint32)
    mask[2:5, 2:5], mask[10:15, 8:12] = 4_000_000_000, 7
    assert measure(mask).labels.tolist() == [4_000_000_000, 7]


def test_an_empty_frame_has_no_objects_and_no_candidates() -> None:
    empty = measure(np.zeros((30, 30), np.uint8), np.zeros((30, 30)))
    full = measure(blobs(1, shape=(30, 30), count=2)[0], np.zeros((30, 30)))
    for first, second in ((empty, full), (full, empty), (empty, empty)):
        found = find_candidates(1, [first], second)
        assert len(found) == 0
        assert found.features.shape == (FEATURES, 0)


def test_candidates_do_not_depend_on_the_numbers_of_masks() -> None:
    rng = np.random.default_rng(0)
    frames = [blobs(seed) for seed in (1, 2, 3)]
    plain = [measure(mask, image) for mask, image in frames]
    mixed = []
    for mask, image in frames:
        numbers = np.concatenate(([0], rng.permutation(np.arange(1, 200))))
        mixed.append(measure(numbers[mask], image))
    one, two = find_candidates(2, plain[1::-1], plain[2]), find_candidates(2, mixed[1::-1], mixed[2])
    assert np.array_equal(one.features, two.features)
    assert np.array_equal(one.source, two.source)
    assert np.array_equal(one.target, two.target)


def test_features_have_no_unit() -> None:
    """A movie of twice the pixels and another exposure looks the same to the linker."""
    objects = {}
    for factor in (3, 6):
        frames = [blobs(seed) for seed in (1, 2)]
        block = np.ones((factor, factor), np.uint16)
        objects[factor] = [
            measure(np.kron(mask, block), np.kron(image, block) * factor, offset=90 * factor, scale=0.05 / factor)
            for mask, image in frames
        ]
    fine, coarse = (find_candidates(1, [first], second) for first, second in objects.values())
    assert np.array_equal(fine.target, coarse.target)
    # The box around an object has a whole number of pixels, so surroundings differ by a pixel's width.
    exact = ["surroundings" not in name for name in feature_names()]
    assert np.abs(fine.features[exact] - coarse.features[exact]).max() < 0.05


def test_every_feature_has_a_name_of_its_own_and_is_finite() -> None:
    assert len(set(feature_names())) == FEATURES
    (one, image), (two, other) = blobs(1), blobs(2)
    found = find_candidates(1, [measure(one, image)], measure(two, other))
    assert found.features.shape == (FEATURES, len(found))
    assert np.isfinite(found.features).all()


@pytest.mark.parametrize("depth", [None, 5])
def test_the_truth_about_candidates(write_sample: Callable[..., Any], depth: int | None) -> None:
    sample = write_sample(depth)
    examples = list(training_examples(sample.movie, sample.masks, sample.truth))
    assert len(examples) == 5
    links = [int((truth[0] == 1).sum()) for _, truth in examples]
    divisions = [int((truth[1] == 1).sum()) for _, truth in examples]
    # In frame 3 the two daughters, the one that was lost in frame 2, and tracks 6 and 7.
    assert links == [4, 3, 5, 4, 4]
    assert divisions == [0, 0, 1, 0, 0]
    for features, truth in examples:
        assert features.dtype == np.float32
        assert truth.dtype == np.int64
        assert ((truth == -1).sum(axis=0) >= 1).all()


def test_examples_with_losses_teach_gaps(sample: Any) -> None:
    gap = feature_names().index("gap")
    whole = list(training_examples(sample.movie, sample.masks, sample.truth))
    holed = list(training_examples(sample.movie, sample.masks, sample.truth, dropped=0.4, seed=3))
    gaps = [sum(int(((t[0] == 1) & (f[gap] == 1)).sum()) for f, t in examples) for examples in (whole, holed)]
    assert gaps[0] == 1
    assert gaps[1] > 1


def test_markers_are_found_by_the_masks_that_cover_them() -> None:
    mask = np.zeros((20, 30), np.uint16)
    mask[2:12, 2:12], mask[2:12, 14:24] = 5, 9
    markers = np.zeros_like(mask)
    markers[5:7, 5:7] = 40  # inside 5
    markers[5:7, 12:15] = 41  # a third inside 9
    objects = measure(mask)
    assert dict(zip(objects.labels, match_tracks(objects, markers), strict=True)) == {5: 40, 9: 0}
    markers[9:11, 9:11] = 42
    assert dict(zip(objects.labels, match_tracks(objects, markers), strict=True)) == {5: -1, 9: 0}


def test_masks_of_another_movie_are_refused(sample: Any) -> None:
    masks = image_from_array(sample.masks.data[:5], "TYX")
    with pytest.raises(DatasetError, match="must have the same shape"):
        next(training_examples(sample.movie, masks, sample.truth))
    coloured = image_from_array(np.stack([sample.movie.data] * 2, axis=1), "TCYX")
    with pytest.raises(AxesError, match="one channel"):
        next(training_examples(coloured, sample.masks, sample.truth))

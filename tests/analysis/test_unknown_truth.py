"""Where the truth is unknown (−1), neither outputs nor answers change a loss or a score."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoray_analysis.augmentation import Augmentation
from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.examples import EXAMPLES
from cytoray_analysis.images import image_from_array
from cytoray_analysis.tasks import InstanceSegmentation
from cytoray_analysis.tasks.instance_scores import count_objects
from cytoray_analysis.tasks.overlap import judged_objects, known_part

SEEDS = st.integers(0, 2**32 - 1)


def squares(seed: int, shape: tuple[int, ...] = (40, 60)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for number in range(1, 12):
        corner = [int(rng.integers(0, length - 3)) for length in shape]
        labels[tuple(slice(at, at + int(rng.integers(3, 10))) for at in corner)] = number
    return labels


@given(SEEDS)
@settings(max_examples=40)
def test_outputs_where_the_truth_is_unknown_do_not_change_the_loss(seed: int) -> None:
    torch.manual_seed(seed)
    task = InstanceSegmentation(small_weight=1.0)
    truth = torch.from_numpy(squares(seed))[None].repeat(2, 1, 1).long()
    truth[0, :, 25:] = -1
    truth[1] = -1
    outputs = torch.randn(2, 3, 40, 60)
    others = torch.where(truth[:, None] < 0, torch.randn(2, 3, 40, 60) * 9, outputs)
    target = task.encode(truth)
    assert torch.equal(task.loss(outputs, target), task.loss(others, target))
    # A crop that is unknown everywhere does not count, either.
    assert torch.allclose(task.loss(outputs, target), task.loss(outputs[:1], target[:1]))


@given(SEEDS, SEEDS)
@settings(max_examples=60)
def test_objects_where_the_truth_is_unknown_do_not_change_the_scores(seed: int, other: int) -> None:
    truth, answer = squares(seed), squares(other)
    known = np.ones(truth.shape, bool)
    known[:, 30:] = False
    cut = np.unique(answer[~known])
    answer[np.isin(answer, cut[cut > 0]) & known] = 0  # so that no object lies on both sides
    masked = np.where(known, truth, -1)
    noisy = np.where(known, answer, squares(seed + 1) + 50)
    np.testing.assert_array_equal(count_objects(answer, masked), count_objects(noisy, masked))
    score = InstanceSegmentation().score([answer], [masked])
    assert score == InstanceSegmentation().score([answer[:, :30]], [truth[:, :30]])


def test_an_object_of_the_answer_counts_if_half_of_it_is_known() -> None:
    truth = np.zeros((10, 20), np.int32)
    truth[2:6, 4:10] = 1
    truth[:, 10:] = -1
    answer = np.zeros((10, 20), np.int32)
    answer[2:6, 4:14] = 1  # 24 of 40 pixels are known
    answer[7:9, 8:14] = 2  # 4 of 12
    assert judged_objects(answer, truth)[1:].tolist() == [True, False]
    kept, _, _ = known_part(answer, truth)
    assert np.unique(kept).tolist() == [0, 1]
    assert InstanceSegmentation().score([answer], [truth])["msa"] == 1.0
    assert InstanceSegmentation().score([answer], [truth])["surface_dice"] == 1.0


def test_a_perfect_answer_of_a_partly_known_image_is_perfect() -> None:
    truth = squares(5)
    scores = InstanceSegmentation().score([truth], [np.where(np.arange(60) < 33, truth, -1)])
    assert (scores["msa"], scores["pq"], scores["surface_dice"], scores["invented"]) == (1, 1, 1, 0)


@given(SEEDS, st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)))
def test_each_crop_has_a_known_pixel(seed: int, chance: tuple[float, float]) -> None:
    rng = np.random.default_rng(seed)
    truth = np.full((200, 180), -1, np.int32)
    y, x = rng.integers(0, 200), rng.integers(0, 180)
    truth[y : y + 3, x : x + 3] = 0
    examples = EXAMPLES["pixel"]

    class Pixels:
        shape = truth.shape

        def read(self, region: tuple[slice, ...]) -> np.ndarray:
            return np.zeros((1, *truth[region].shape), np.float32)

    still = Augmentation(flips=False, rotation=0, zoom=(1, 1), elastic=0)
    _, window = examples.window(Pixels(), truth, 0, np.array(chance), (32, 32), still)
    assert window.shape == (32, 32)
    assert (window >= 0).any()


def test_an_image_without_a_known_label_is_not_cached() -> None:
    image = image_from_array(np.zeros((1, 8, 8), np.uint8), "CYX")
    for value, count in ((-1, 0), (0, 1)):
        truth = np.full((8, 8), value, np.int32)
        assert len(list(EXAMPLES["pixel"].cut(image, truth, None, ModelInput()))) == count

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cytoray_analysis.errors import BundleError
from cytoray_analysis.images.intensity import IntensityScaling, intensity_map, scale_intensities
from cytoray_analysis.networks import build_network
from cytoray_analysis.networks.threshold import Threshold
from cytoray_analysis.tasks.segmentation import InstanceSegmentation
from cytoray_analysis.threshold import threshold_and_split

CENTRES = ((40, 40), (40, 62), (90, 120), (130, 30))
OTSU = IntensityScaling(method="otsu")


def disks(radius: float = 12.0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A blurred image of disks, two of which touch, and their labels."""
    rows, columns = np.indices((160, 160))
    labels = np.zeros((160, 160), np.int64)
    for number, (row, column) in enumerate(CENTRES, 1):
        labels[np.hypot(rows - row, columns - column) <= radius] = number
    noise = np.random.default_rng(0).normal(0, 5, labels.shape)
    return (gaussian_filter((labels > 0) * 400.0, 1.5) + 100 + noise).astype(np.float32), labels


def outlined(image: NDArray[np.float32]) -> NDArray[np.int32]:
    """Scale an image by its threshold, and outline its objects with the default decode parameters."""
    task = InstanceSegmentation()
    scaled = scale_intensities(image[np.newaxis], *intensity_map(image[np.newaxis], OTSU, None))
    with torch.inference_mode():
        outputs = Threshold()(torch.from_numpy(scaled)[np.newaxis])[0].numpy()
    found: NDArray[np.int32] = task.decode(outputs, task.output.defaults()).values
    return found


def test_disks_are_outlined_and_those_that_touch_are_divided() -> None:
    image, labels = disks()
    scores = InstanceSegmentation().score([outlined(image)], [labels])
    assert scores["ap75"] == 1.0
    assert scores["iou"] > 0.9


def test_it_finds_what_otsu_with_a_watershed_finds() -> None:
    image, _ = disks()
    scores = InstanceSegmentation().score([outlined(image)], [threshold_and_split(image).astype(np.int64)])
    assert scores["ap90"] == 1.0


def test_the_unit_of_an_image_does_not_matter() -> None:
    image, _ = disks()
    np.testing.assert_array_equal(outlined(image), outlined(image * 2.0**10))


def test_noise_alone_has_no_object() -> None:
    noise = np.random.default_rng(0).normal(100, 5, (160, 160)).astype(np.float32)
    assert not outlined(noise).any()


def test_nothing_beyond_its_halo_changes_a_pixel() -> None:
    network = Threshold(farthest=8)
    image = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (1, 1, 121, 121))).float()
    assert 2 * network.halo + 9 <= 121
    changed = image.clone()
    changed[..., 0, :], changed[..., :, -1] = 5.0, -5.0
    middle = np.s_[..., network.halo + 1 : -network.halo - 1, network.halo + 1 : -network.halo - 1]
    torch.testing.assert_close(network(image)[middle], network(changed)[middle], rtol=0, atol=1e-6)


@pytest.mark.parametrize("arguments", [{"inputs": 3}, {"outputs": 4}, {"farthest": 0}])
def test_what_it_cannot_do_is_an_error(arguments: dict[str, int]) -> None:
    with pytest.raises(BundleError):
        build_network("threshold", arguments)


def test_a_training_set_has_no_threshold() -> None:
    with pytest.raises(ValueError, match="scope image"):
        IntensityScaling(method="otsu", scope="dataset")

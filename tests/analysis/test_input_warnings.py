"""What was assumed about an image goes with every answer, on every way to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cytoray_analysis.answer_warnings import AnswerWarning
from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.cells import cells_from_boxes
from cytoray_analysis.errors import CytorayError, ImageError
from cytoray_analysis.images import Image, image_from_array
from cytoray_analysis.inference.objects import segment
from cytoray_analysis.networks import build_network
from cytoray_analysis.predictor import Predictor

SIZE = {"Y": 0.5, "X": 0.5}
READ = AnswerWarning("axes-guessed", "the reader said so")


def predictor_of(
    folder: Path, task: str, arguments: dict[str, Any], network: NetworkChoice, inputs: ModelInput, **options: Any
) -> Predictor:
    torch.manual_seed(0)
    weights = build_network(network.name, network.arguments).state_dict()
    spec = BundleSpec(
        name="m", task=TaskChoice(name=task, arguments=arguments), input=inputs, network=network, decode={}
    )
    sample = np.zeros((inputs.inputs, *(inputs.window or (16, 16))), np.float32)
    bundle = write_bundle(folder / "bundle", spec, weights, test_input=sample, card="# random\n")
    return Predictor(bundle, precision="fp32", **options)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    network = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 3, "dimensions": 2, "widths": [4, 8]})
    inputs = ModelInput(channels=("phase",), pixel_size=SIZE)
    return predictor_of(tmp_path_factory.mktemp("model"), "segmentation", {}, network, inputs)


def picture(channel: str = "phase", size: dict[str, float] | None = None, frames: int = 0) -> Image:
    pixels = np.zeros((48, 64), np.uint8)
    pixels[10:30, 20:40] = 200
    if frames:
        pixels = np.stack([pixels] * frames)
    axes = "TYX" if frames else "YX"
    return image_from_array(pixels, axes, channels=[channel], pixel_size=size, source="a.tif", warnings=[READ])


def codes(answer: Any) -> list[str]:
    return [warning.code for warning in answer.warnings]


def test_one_image_and_several_carry_what_was_assumed(segmenter: Predictor) -> None:
    assert codes(segmenter.predict(picture(size=SIZE))) == ["axes-guessed"]
    assert codes(segmenter.predict(picture())) == ["axes-guessed", "pixel-size-unknown"]
    found = segmenter.predict_batch([picture("DAPI", SIZE), picture(size={"Y": 99.0, "X": 99.0}), picture("DAPI")])
    assert isinstance(found[1], ImageError)
    kept = [codes(one) for one in found if not isinstance(one, CytorayError)]
    assert kept == [
        ["axes-guessed", "channels-by-position"],
        ["axes-guessed", "channels-by-position", "pixel-size-unknown"],
    ]


def test_what_is_written_block_by_block_carries_it_too(segmenter: Predictor, tmp_path: Path) -> None:
    stored = segmenter.predict_to_zarr(picture(), tmp_path / "answer.ome.zarr")
    assert codes(stored) == ["axes-guessed", "pixel-size-unknown"]
    assert codes(segmenter.blocks(picture("DAPI", SIZE)).source) == ["channels-by-position"]


def test_frames_of_a_movie_say_each_thing_once(segmenter: Predictor) -> None:
    found = segment(picture("DAPI", frames=3), segmenter)
    assert found.labels.shape == (3, 48, 64)
    codes_said = sorted(warning.code for warning in found.warnings)
    assert codes_said == ["axes-guessed", "channels-by-position", "pixel-size-unknown"]


def test_classes_of_cells_carry_it(tmp_path: Path) -> None:
    network = NetworkChoice(name="linear", arguments={"inputs": 1, "outputs": 2, "side": 4})
    inputs = ModelInput(channels=("phase",), window=(16, 16), pixel_size=SIZE)
    predictor = predictor_of(tmp_path, "classification", {"classes": ["a", "b"]}, network, inputs)
    answer = predictor.predict(picture("DAPI"), cells_from_boxes([((2, 3), (18, 19))]))
    assert codes(answer) == ["axes-guessed", "channels-by-position", "pixel-size-unknown"]


def test_memory_counts_an_image_as_the_network_sees_it(segmenter: Predictor) -> None:
    small = Predictor(segmenter.bundle, precision="fp32", memory_budget=2**17)
    assert small.fits(picture(size=SIZE))
    assert not small.fits(picture(size={"Y": 4.0, "X": 4.0}))
    assert small.network_pixels(picture(size={"Y": 4.0, "X": 4.0})) == 64 * 48 * 64
    assert small.network_pixels(picture(size={"Y": 0.1, "X": 0.1})) == 48 * 64
    with pytest.raises(ImageError, match="-fold"):
        small.fits(picture(size={"Y": 400.0, "X": 400.0}))

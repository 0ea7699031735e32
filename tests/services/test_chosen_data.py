"""What is taken of the images of a data set, and what of their truth goes with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import DatasetError, InputError, RequestError
from cytoray_analysis.images import image_from_array, write_image, write_labels
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.selection import Selection
from cytoray_services.commands.root import main
from cytoray_services.datasets import Dataset, open_dataset, read_labelled, read_parts
from cytoray_services.datasets.check import check_dataset
from cytoray_services.evaluation.evaluation import evaluate
from serving_samples import noise, write_small_bundle

PIXELS = noise(2, 3, 40, 48)  # C Z Y X
MASKS = np.zeros((3, 40, 48), np.uint16)
for _plane in range(3):
    MASKS[_plane, 4:12, 4 + _plane : 12 + _plane] = 1
MASKS[1, 20:30, 20:30] = 2


@pytest.fixture
def stacks(tmp_path: Path) -> Dataset:
    for split in ("train", "val"):
        pixels = PIXELS if split == "train" else PIXELS[..., ::-1]
        image = image_from_array(pixels, "CZYX", channels=["DAPI", "GFP"])
        (tmp_path / "set" / split / "images").mkdir(parents=True)
        (tmp_path / "set" / split / "masks").mkdir()
        write_image(tmp_path / "set" / split / "images" / f"{split}.ome.tif", image)
        write_labels(tmp_path / "set" / split / "masks" / f"{split}.tif", MASKS)
    rows = [f"{split}/images/{split}.ome.tif,{split}/masks/{split}.tif,{split}" for split in ("train", "val")]
    (tmp_path / "set" / "manifest.csv").write_text("\n".join(["image,mask,split", *rows]) + "\n")
    return open_dataset(tmp_path / "set")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundles") / "nuclei")


def chosen(dataset: Dataset, **fields: Any) -> Dataset:
    return dataset.choosing(Selection(**fields)).split("train")


def test_masks_follow_the_plane_of_their_image(stacks: Dataset) -> None:
    data = chosen(stacks, channel="GFP", plane=1)
    one = read_labelled(data, data.images[0], {})
    np.testing.assert_array_equal(one.image.read(), PIXELS[1, 1])
    np.testing.assert_array_equal(one.truth, MASKS[1])
    assert (one.image.channels, one.image.numbers) == (("GFP",), (1,))


def test_each_plane_is_an_image_of_its_own(stacks: Dataset) -> None:
    data = chosen(stacks, channel="DAPI", plane="each")
    parts = list(read_parts(data, data.images[0], {}))
    assert len(parts) == 3
    for index, part in enumerate(parts):
        np.testing.assert_array_equal(part.image.read(), PIXELS[0, index])
        np.testing.assert_array_equal(part.truth, MASKS[index])


def test_a_projection_shows_objects_that_lie_beside_each_other_and_refuses_others(stacks: Dataset) -> None:
    data = chosen(stacks, channel="DAPI", plane="max")
    one = read_labelled(data, data.images[0], {})
    np.testing.assert_array_equal(one.truth, MASKS.max(axis=0))
    np.testing.assert_array_equal(one.image.read(), PIXELS[0].max(axis=0))
    hidden = MASKS.copy()
    hidden[2, 4:12, 4:12] = 9
    write_labels(Path(str(data.items[0].truth)), hidden)
    with pytest.raises(
        DatasetError, match="maximum along Z, got a stack with overlapping objects in 64 pixels"
    ) as caught:
        read_labelled(data, data.images[0], {})
    assert "plane" in (caught.value.hint or "")


def test_masks_without_the_planes_are_named(stacks: Dataset) -> None:
    data = chosen(stacks, channel="DAPI", plane="each")
    write_labels(Path(str(data.items[0].truth)), MASKS[:2])
    with pytest.raises((DatasetError, InputError), match=r"train\.tif"):
        list(read_parts(data, data.images[0], {}))


def test_the_check_sees_what_is_chosen(stacks: Dataset) -> None:
    def errors(**fields: Any) -> list[str]:
        found = check_dataset(stacks.choosing(Selection(**fields)), axes="YX", channels=1)
        return [finding.code for finding in found if finding.severity == "error"]

    assert "wrong-axes" in errors()
    for fields in ({"plane": 1}, {"plane": "max"}, {"plane": "each"}):
        assert errors(channel="GFP", **fields) == []
    assert set(errors(channel="Cy5", plane=1)) == {"wrong-axes"}
    assert set(errors(channel="GFP", plane=7)) == {"wrong-axes"}


def test_an_evaluation_of_each_plane_is_that_of_planes_alone(stacks: Dataset, bundle: Path) -> None:
    predictor = Predictor(Bundle.load(bundle), device="cpu", precision="fp32")
    together = evaluate(predictor, chosen(stacks, channel="DAPI", plane="each"))
    alone = [evaluate(predictor, chosen(stacks, channel="DAPI", plane=index)) for index in range(3)]
    assert [one.metrics for one in together.items] == [one.items[0].metrics for one in alone]
    with pytest.raises(InputError):
        evaluate(predictor, stacks.split("train"))


def test_joined_planes_are_scored_as_objects_of_the_volume(stacks: Dataset, bundle: Path) -> None:
    predictor = Predictor(Bundle.load(bundle), device="cpu", precision="fp32")
    data = chosen(stacks, channel="DAPI", plane="stitch")
    (scored,) = evaluate(predictor, data).items
    assert scored.labelled.truth.shape == MASKS.shape == scored.prediction.answer.shape
    assert scored.prediction.joined == "Z"
    assert scored.metrics == predictor.task.score([scored.prediction.answer], [MASKS])


def test_every_series_is_no_data_set(stacks: Dataset) -> None:
    with pytest.raises(RequestError, match="one series"):
        stacks.choosing(Selection(series="each"))


def test_the_command_takes_the_options_and_repeats_the_channel(
    stacks: Dataset, bundle: Path, cytoray_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", str(bundle), str(stacks.root), "--json", *words])
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    status, answer = run("--channel", "gfp", "--plane", "1")
    assert status == 0
    assert answer["channels"] == [{"name": "GFP", "number": 1}]
    assert answer["selection"] == {"channel": ["gfp"], "plane": "1"}
    assert answer["warnings"] == []
    status, answer = run("--plane", "last")
    assert (status, answer["field"]) == (2, "plane")


@pytest.mark.parametrize(
    ("axes", "fields", "expected"),
    [
        ("TYX", {"frame": "1"}, MASKS[1]),
        ("TZYX", {"frame": "1", "plane": "0"}, MASKS[1]),
        ("TYX", {"frame": "each"}, MASKS),
    ],
)
def test_masks_of_a_plain_stack_are_frames_where_their_image_has_frames(
    axes: str, fields: dict[str, str], expected: np.ndarray, tmp_path: Path
) -> None:
    pixels, masks = (PIXELS[0], MASKS) if axes == "TYX" else (PIXELS.swapaxes(0, 1), MASKS[:, None].repeat(2, axis=1))
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    write_image(tmp_path / "images" / "a.ome.tif", image_from_array(pixels, axes))
    tifffile.imwrite(tmp_path / "masks" / "a.tif", masks, photometric="minisblack")
    dataset = open_dataset(tmp_path).choosing(Selection(**fields))
    one = read_labelled(dataset, dataset.images[0], {})
    np.testing.assert_array_equal(one.truth, expected)


@pytest.mark.parametrize(
    ("axes", "masks", "fields"),
    [
        ("ZYX", MASKS[0], {"plane": "each"}),
        ("ZYX", MASKS[:2], {"plane": "each"}),
        ("TZYX", MASKS, {"frame": "1", "plane": "0"}),
        ("TZYX", MASKS, {"frame": "1", "plane": "max"}),
    ],
)
def test_masks_that_may_be_those_of_other_planes_are_refused_in_words(
    axes: str, masks: np.ndarray, fields: dict[str, str], bundle: Path, tmp_path: Path
) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    pixels = PIXELS[0] if axes == "ZYX" else PIXELS.swapaxes(0, 1)
    write_image(tmp_path / "images" / "a.ome.tif", image_from_array(pixels, axes))
    tifffile.imwrite(tmp_path / "masks" / "a.tif", masks, photometric="minisblack", metadata=None)
    dataset = open_dataset(tmp_path).choosing(Selection(**fields))
    with pytest.raises(InputError, match=r"masks/a\.tif"):
        evaluate(Predictor(Bundle.load(bundle)), dataset)


def test_a_truth_with_frames_that_its_answer_lacks_is_refused_in_words(bundle: Path, tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    write_image(tmp_path / "images" / "a.tif", image_from_array(PIXELS[0, 0], "YX"))
    write_labels(tmp_path / "masks" / "a.tif", MASKS)
    with pytest.raises(DatasetError, match=r"size of its answer, \(40, 48\), got \(3, 40, 48\)"):
        evaluate(Predictor(Bundle.load(bundle)), open_dataset(tmp_path))

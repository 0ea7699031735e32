from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytoray_analysis.errors import DatasetError, ImageError, MissingFileError
from cytoray_analysis.images import Image, read_image, read_labels, write_labels
from cytoray_analysis.tracking import ctc
from cytoray_analysis.tracking.frames import FrameStack


def test_a_movie_is_read_frame_by_frame(sample: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    movie = ctc.read_movie(sample.folder / "01")
    assert (movie.axes, movie.shape) == ("TYX", (6, 64, 64))
    assert movie.dtype == np.dtype(np.uint16)
    opened: list[str] = []

    def noted(path: Path, **options: Any) -> Image:
        opened.append(path.name)
        return read_image(path, **options)

    monkeypatch.setattr(ctc, "read_image", noted)
    part = movie.read((slice(3, 5), slice(10, 20), slice(None)))
    assert np.array_equal(part, sample.movie.data[3:5, 10:20])
    assert opened == ["t003.tif", "t004.tif"]


@pytest.mark.parametrize("depth", [None, 5])
def test_truth_and_results_come_back_as_they_were(
    write_sample: Callable[..., Any], depth: int | None, tmp_path: Path
) -> None:
    truth = write_sample(depth).truth
    assert truth.table[:3].tolist() == [[1, 0, 2, 0], [2, 3, 5, 1], [3, 3, 5, 1]]
    ctc.write_results(tmp_path / "01_RES", truth)
    again = ctc.read_lineage(tmp_path / "01_RES")
    assert again.table.tolist() == truth.table.tolist()
    assert np.array_equal(again.tracked[:], truth.tracked[:])
    assert np.allclose(again.centroid, truth.centroid)
    assert read_labels(tmp_path / "01_RES" / "mask000.tif").dtype == np.uint16
    assert truth.centroid[0].tolist() == ([] if depth is None else [2.0]) + [20.0, 12.0]
    assert truth.box[0, 0].tolist() == ([] if depth is None else [1]) + [17, 9]


def test_frames_may_have_four_digits(sample: Any) -> None:
    for path in list((sample.folder / "01").iterdir()):
        path.rename(path.with_name(f"t0{path.name[1:]}"))
    assert ctc.read_movie(sample.folder / "01").shape == (6, 64, 64)


def test_a_missing_frame_is_named(sample: Any) -> None:
    (sample.folder / "01" / "t002.tif").unlink()
    (sample.folder / "01_GT" / "TRA" / "man_track000.tif").unlink()
    with pytest.raises(DatasetError, match="expected frames 0 to 5, missing 2") as caught:
        ctc.read_movie(sample.folder / "01")
    assert caught.value.hint
    with pytest.raises(DatasetError, match="missing 0"):
        ctc.read_truth(sample.folder / "01_GT")


def test_missing_folders_and_files_are_named(sample: Any) -> None:
    with pytest.raises(MissingFileError, match=r"expected a folder at .*02, found none"):
        ctc.read_movie(sample.folder / "02")
    with pytest.raises(MissingFileError, match=r"expected frames in .*, such as t000\.tif"):
        ctc.read_movie(sample.folder / "01_GT")
    (sample.folder / "01_GT" / "TRA" / "man_track.txt").unlink()
    with pytest.raises(MissingFileError, match=r"man_track\.txt, found none"):
        ctc.read_truth(sample.folder / "01_GT")


def test_a_frame_of_another_shape_is_named_when_it_is_read(sample: Any) -> None:
    write_labels(sample.folder / "01" / "t004.tif", np.ones((64, 60), np.uint16))
    movie = ctc.read_movie(sample.folder / "01")
    with pytest.raises(DatasetError, match=r"t004\.tif: expected a frame of shape \(64, 64\)"):
        movie.read()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 3 5 2\n2 4 5 0\n", "a parent must end before its daughter begins, but track 1 begins in frame 3"),
        ("1 0 5\n", "line 1: expected four integers"),
        ("1 0 5 0\n2 0 x 0\n", "line 2: expected four integers"),
        ("1 0 5 -1\n", "line 1: expected four integers"),
    ],
)
def test_a_bad_list_of_tracks_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "man_track.txt").write_text(text)
    with pytest.raises(DatasetError, match=said) as caught:
        ctc.read_tracks(tmp_path / "man_track.txt")
    assert caught.value.hint
    assert "man_track.txt" in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(max_size=60))
def test_any_text_is_tracks_or_one_of_our_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / "tracks.txt").write_text(text, encoding="utf-8")
    try:
        table = ctc.read_tracks(tmp_path / "tracks.txt")
    except DatasetError:
        return
    assert table.shape[1] == 4


def test_tracks_that_the_masks_do_not_show_are_refused(sample: Any) -> None:
    place = sample.folder / "01_GT" / "TRA" / "man_track.txt"
    place.write_text(place.read_text().replace("7 0 3 0", "7 0 4 0"))
    with pytest.raises(DatasetError, match="track 7 has no object in frame 4"):
        ctc.read_truth(sample.folder / "01_GT")


@pytest.mark.parametrize("large", [65_536, 2**33])
def test_numbers_beyond_16_bits_are_renumbered_with_a_table(sample: Any, tmp_path: Path, large: int) -> None:
    truth = sample.truth
    lineage = replace(
        truth,
        track_id=np.where(truth.track_id == 7, large, truth.track_id),
        track=np.where(truth.track == 7, large, truth.track),
    )
    ctc.write_results(tmp_path / "out", lineage)
    back = ctc.read_lineage(tmp_path / "out")
    assert np.array_equal(back.tracked[:], truth.tracked[:])
    table = (tmp_path / "out" / "res_track.numbers.csv").read_text().splitlines()
    assert table[-1] == f"7,{large}"


def test_more_tracks_than_16_bits_number_are_refused(sample: Any, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="at most 65535 tracks for this layout, got 65536") as caught:
        ctc.write_results(tmp_path / "out", replace(sample.truth, track_id=np.arange(1, 65_537)))
    assert "GEFF" in (caught.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_outlines_come_from_gold_and_then_from_silver(sample: Any, write_sample: Callable[..., Any]) -> None:
    assert sample.truth.outlines == {}
    silver = sample.folder / "01_ST" / "SEG"
    write_labels(silver / "man_seg001.tif", np.ones((64, 64), np.uint16))
    assert list(ctc.read_truth(sample.folder / "01_GT").outlines) == [1]
    write_labels(sample.folder / "01_GT" / "SEG" / "man_seg004.tif", np.full((64, 64), 3, np.uint16))
    gold = ctc.read_truth(sample.folder / "01_GT").outlines
    assert list(gold) == [4]
    assert gold[4]().max() == 3


def test_outlines_of_any_number_and_case_are_found_and_no_other_image_is_passed_over(sample: Any) -> None:
    folder = sample.folder / "01_GT" / "SEG"
    for name in ("man_seg00001.tif", "man_seg004.TIF"):
        write_labels(folder / name.lower(), np.ones((64, 64), np.uint16))
        (folder / name.lower()).rename(folder / name)
    assert sorted(ctc.read_truth(sample.folder / "01_GT").outlines) == [1, 4]
    write_labels(folder / "seg003.tif", np.ones((64, 64), np.uint16))
    with pytest.raises(DatasetError, match=r"got seg003\.tif"):
        ctc.read_truth(sample.folder / "01_GT")


def test_outlines_of_single_planes_leave_the_others_unknown(write_sample: Callable[..., Any]) -> None:
    sample = write_sample(5)
    write_labels(sample.folder / "01_GT" / "SEG" / "man_seg_002_003.tif", np.ones((64, 64), np.uint16))
    volume = ctc.read_truth(sample.folder / "01_GT").outlines[2]()
    assert volume.shape == (5, 64, 64)
    assert volume[3].min() == 1
    assert volume[[0, 1, 2, 4]].max() == -1


def test_a_stack_slices_as_numpy_does() -> None:
    whole = np.arange(120).reshape(5, 4, 6)
    stack = FrameStack(lambda index: whole[index], whole.shape, whole.dtype)
    for region in (2, -1, slice(1, 4), slice(4, 1), (slice(None), slice(1, 3), slice(0, 6, 2)), (3, slice(2, 4))):
        assert np.array_equal(stack[region], whole[region])

"""The check of files that are damaged or changed so that they can still be read: what is unlike the others is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoray_analysis.images import image_from_array, read_image
from cytoray_services.datasets import Finding, make_segmentation
from cytoray_services.datasets.check.looks import Look, look_of_image
from cytoray_services.datasets.check.unlike import unlike_files
from cytoray_services.datasets.synthetic.tracking import make_tracking
from folder_checks import check_folder
from tiny_datasets import TINY, make_tiny, store


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("cells, plain TIFF", tmp_path_factory.mktemp("sound") / "cells")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "cells"))


def image_of(folder: Path, index: int = 3) -> Path:
    return folder / "train" / "images" / f"train_{index}.tif"


def mask_of(folder: Path, index: int = 3) -> Path:
    return folder / "train" / "masks" / f"train_{index}.tif"


def alter(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    labels = path.parent.name in ("masks", "TRA", "SEG")
    store(path, change(read_image(path, labels=labels).read().copy()))


def put(place: tuple[slice | int, ...], value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(pixels: np.ndarray) -> np.ndarray:
        pixels[place] = value
        return pixels

    return change


def shuffle(pixels: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).permutation(pixels.ravel()).reshape(pixels.shape)


def about(findings: list[Finding], file: str) -> list[Finding]:
    return [finding for finding in findings if finding.file == file]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TINY if name != "made movies"])
def test_sound_sets_have_no_finding(tmp_path: Path, name: str) -> None:
    assert check_folder(make_tiny(name, tmp_path / "cells")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.astype(np.float32), "type float32, those of the others uint16"),
        (lambda p: p * 16, "times as bright as the others"),
        (lambda p: p // 16, "times darker than the others"),
        (lambda p: p.max() - p, "its objects are dark"),
        (lambda p: p.byteswap(), "unlike"),
        (put((5, slice(0, 12)), 0), "smallest value"),
        (put((slice(10, 13), slice(None)), 900), "it has a run of equal pixels, 32 times as long"),
        (put((9, 20), 40_000), "single pixels stand out"),
        (lambda p: p & 0xFFF0, "multiples of"),
        (shuffle, "noisy"),
    ],
)
def test_an_image_unlike_all_others_is_named(
    folder: Path, change: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    alter(image_of(folder), change)
    (finding,) = about(check_folder(folder), "train/images/train_3.tif")
    assert (finding.severity, finding.code) == ("note", "unlike-others")
    assert words in finding.problem or words == "unlike"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.astype(np.int32), "type int32"),
        (put((1, 1), 9), "isolated pixels far from their object"),
        (lambda p: p * 500, "its numbers go"),
        (put((slice(8, 20), slice(None)), 5), "cut along a row"),
        (
            lambda p: np.random.default_rng(0).permutation(p.ravel()).reshape(p.shape),
            "does not fit its image train/images/train_3.tif",
        ),
    ],
)
def test_a_mask_unlike_all_others_is_named(
    folder: Path, change: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    alter(mask_of(folder), change)
    (finding,) = about(check_folder(folder), "train/masks/train_3.tif")
    assert words in finding.problem


@pytest.mark.slow
def test_other_channel_names_and_pixel_sizes_are_named_with_both(tmp_path: Path) -> None:
    folder = make_tiny("cells, OME-TIFF", tmp_path / "cells")
    first, second = (folder / "train" / "images" / f"train_{index}.ome.tif" for index in (1, 4))
    store(first, read_image(first).read(), channels=("Actin", "DAPI"))
    store(second, read_image(second).read(), pixel_size={"Y": 0.325, "X": 0.325})
    findings = check_folder(folder)
    (names,) = about(findings, "train/images/train_1.ome.tif")
    assert "its channels are called Actin, DAPI, those of the others DAPI, Actin" in names.problem
    (size,) = about(findings, "train/images/train_4.ome.tif")
    assert "its pixel size is 0.325 × 0.325 µm, that of the others 0.65 × 0.65 µm" in size.problem


def test_several_files_that_share_another_size_are_of_another_kind() -> None:
    usual, other = Look({"size": "363 × 360"}), Look({"size": "369 × 366"})
    for count, named in ((1, 1), (2, 2), (3, 0)):
        looks = {Path(f"{number}.jpg"): other if number < count else usual for number in range(200)}
        assert len(unlike_files(looks)) == named


def test_an_image_of_another_ending_is_named(tmp_path: Path) -> None:
    folder = make_tiny("classes, PNG", tmp_path / "cells")
    path = folder / "train" / "round" / "train_round_3.png"
    path.rename(path.with_suffix(".bak"))
    (finding,) = check_folder(folder)
    assert (finding.code, finding.file) == ("unlike-others", "train/round/train_round_3.bak")
    assert finding.problem == "its name ends in .bak, unlike those of the others"


def test_a_truth_that_is_not_there_is_named_with_its_image(folder: Path) -> None:
    image_of(folder).rename(image_of(folder).with_suffix(".bak"))
    (finding,) = (finding for finding in check_folder(folder) if finding.code == "missing-file")
    assert finding.problem == "the file does not exist, the mask of train/images/train_3.bak"


@pytest.mark.slow
@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, np.transpose])
def test_an_image_that_was_turned_is_named_with_its_mask(
    folder: Path, turn: Callable[[np.ndarray], np.ndarray]
) -> None:
    alter(image_of(folder), turn)
    findings = about(check_folder(folder), "train/masks/train_3.tif")
    assert any("images/train_3.tif" in finding.problem for finding in findings)


def test_where_the_others_differ_as_much_nothing_is_unlike(folder: Path) -> None:
    factors = (1, 2, 4, 8, 16, 1, 3, 9, 12)
    for path, factor in zip(sorted(folder.glob("*/images/*")), factors, strict=True):
        alter(path, lambda pixels, factor=factor: pixels * factor)  # type: ignore[misc]
    assert not [finding for finding in check_folder(folder) if "bright" in finding.problem or "dark" in finding.problem]


def test_what_has_another_fault_is_not_called_unlike_too(folder: Path) -> None:
    alter(image_of(folder), lambda pixels: np.full_like(pixels, 7))
    assert [(finding.code, finding.file) for finding in check_folder(folder)] == [
        ("constant-image", "train/images/train_3.tif")
    ]


def test_an_image_and_a_mask_that_are_there_twice_are_noted(folder: Path) -> None:
    shutil.copyfile(image_of(folder, 1), image_of(folder, 2))
    shutil.copyfile(mask_of(folder, 4), mask_of(folder, 5))
    found = {finding.code: finding for finding in check_folder(folder) if finding.code.startswith("same-")}
    assert found["same-image"].file == "train/images/train_2.tif"
    assert found["same-image"].problem == "its pixels are those of train/images/train_1.tif"
    assert found["same-truth"].file == "train/masks/train_5.tif"


def test_few_files_are_compared_by_what_can_be_said_in_words(tmp_path: Path) -> None:
    make_segmentation(tmp_path / "cells", images=4, size=32)
    path = tmp_path / "cells" / "images" / "0002.tif"
    tifffile.imwrite(path, read_image(path).read().astype(np.uint16))
    (finding,) = check_folder(tmp_path / "cells")
    assert (finding.code, finding.file) == ("unlike-others", "images/0002.tif")


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["uint8", "uint16", "int32", "float32"]), min_size=1, max_size=7),
    side=st.integers(1, 9),
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([0, 1, 255]),
)
def test_images_of_any_kind_and_size_can_be_compared(kinds: list[str], side: int, seed: int, scale: int) -> None:
    rng = np.random.default_rng(seed)
    looks = {}
    for index, kind in enumerate(kinds):
        pixels = (rng.random((side, 1 + side // 2)) * scale).astype(kind)
        looks[Path(str(index))] = look_of_image(image_from_array(pixels, "YX"), pixels)
    assert all(np.isfinite(list(look.measures.values())).all() for look in looks.values())
    assert set(unlike_files(looks)) <= set(looks)


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("movies") / "movies"
    make_tracking(folder, movies=1, frames=8, size=64, seed=1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("01/t004.tif", lambda p: p * 0 + p.max() - p),
        ("01/t004.tif", np.transpose),
        ("01_GT/TRA/man_track004.tif", np.fliplr),
        ("01_ST/SEG/man_seg004.tif", np.fliplr),
        ("01_ST/SEG/man_seg004.tif", lambda p: p[:-1]),
    ],
)
def test_a_frame_unlike_those_around_it_is_named(
    movie: Path, tmp_path: Path, file: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    folder = Path(shutil.copytree(movie, tmp_path / "movies"))
    alter(folder / file, lambda pixels: np.ascontiguousarray(change(pixels)))
    assert about(check_folder(folder), file)


def test_damaged_outlines_are_an_error(movie: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(movie, tmp_path / "movies"))
    (folder / "01_ST" / "SEG" / "man_seg002.tif").write_bytes(b"")
    (finding,) = about(check_folder(folder), "01_ST/SEG/man_seg002.tif")
    assert (finding.severity, finding.code) == ("error", "invalid-mask")

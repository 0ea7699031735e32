"""The check of movies and lineages: every fault is planted and found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cytoray_services.datasets import Finding, check_dataset, join_datasets, open_dataset
from folder_checks import check_folder

COLOUR = np.arange(3072).reshape(32, 32, 3).astype(np.uint8)

FRAMES = 6
# Cell 1 divides after frame 2 into 2 and 3; cell 4 stays.
TABLE = "1 0 2 0\n2 3 5 1\n3 3 5 1\n4 0 5 0\n"
PLACES = {1: (10, 10), 2: (6, 10), 3: (16, 10), 4: (24, 24)}


def present(frame: int) -> tuple[int, ...]:
    return (1, 4) if frame < 3 else (2, 3, 4)


def write_movie(root: Path, shape: tuple[int, ...] = (32, 32), seed: int = 0) -> None:
    """Write a movie of squares in the layout of the Cell Tracking Challenge; volumes for a shape of three axes."""
    markers = root / "01_GT" / "TRA"
    markers.mkdir(parents=True)
    (root / "01").mkdir()
    rng = np.random.default_rng(seed)
    for frame in range(FRAMES):
        mask = np.zeros(shape, np.uint16)
        for track in present(frame):
            y, x = PLACES[track]
            mask[..., y - 3 : y + 3, x - 3 : x + 3] = track
        image = rng.normal(20.0, 2.0, shape) + 80 * (mask > 0)
        axes = {"axes": "ZYX"[-len(shape) :]}
        tifffile.imwrite(root / "01" / f"t{frame:03d}.tif", image.astype(np.uint8), metadata=axes)
        tifffile.imwrite(markers / f"man_track{frame:03d}.tif", mask, metadata=axes)
    (markers / "man_track.txt").write_text(TABLE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "movie"
    write_movie(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "movie"))


def frame_of(folder: Path, index: int = 3) -> Path:
    return folder / "01" / f"t{index:03d}.tif"


def mask_of(folder: Path, index: int = 3) -> Path:
    return folder / "01_GT" / "TRA" / f"man_track{index:03d}.tif"


def table_of(folder: Path) -> Path:
    return folder / "01_GT" / "TRA" / "man_track.txt"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def nan(path: Path) -> None:
    tifffile.imwrite(path, np.full((32, 32), np.nan, np.float32))


def crop_masks(folder: Path) -> None:
    for index in range(FRAMES):
        tifffile.imwrite(mask_of(folder, index), tifffile.imread(mask_of(folder, index))[:, :-1])


def remove(place: Callable[[Path, int], Path], folder: Path) -> None:
    for index in range(FRAMES):
        place(folder, index).unlink()


def edit(folder: Path, old: str, new: str) -> None:
    assert old in TABLE
    table_of(folder).write_text(TABLE.replace(old, new))


PLANTS: list[tuple[str, str, Callable[[Path], object]]] = [
    ("missing-frame", "01", lambda f: frame_of(f).unlink()),
    ("missing-frame", "01", lambda f: frame_of(f, 0).unlink()),
    ("missing-frame", "01_GT/TRA", lambda f: mask_of(f).unlink()),
    ("missing-frame", "01_GT/TRA", lambda f: frame_of(f, 5).unlink()),
    ("missing-file", "01_GT/TRA/man_track.txt", lambda f: table_of(f).unlink()),
    ("missing-file", "01_GT/TRA", lambda f: remove(mask_of, f)),
    ("missing-file", "01", lambda f: remove(frame_of, f)),
    ("unreadable", "01", lambda f: frame_of(f).write_text("no pixels")),
    ("truncated", "01", lambda f: cut(frame_of(f))),
    ("truncated", "01_GT/TRA", lambda f: cut(mask_of(f))),
    ("not-finite", "01", lambda f: nan(frame_of(f))),
    ("size-mismatch", "01", lambda f: tifffile.imwrite(frame_of(f), np.eye(31, dtype=np.uint8))),
    ("size-mismatch", "01_GT/TRA", crop_masks),
    ("wrong-axes", "01", lambda f: tifffile.imwrite(frame_of(f, 0), COLOUR)),
    ("invalid-mask", "01_GT/TRA", lambda f: tifffile.imwrite(mask_of(f), np.full((32, 32), 0.5, np.float32))),
    ("invalid-lineage", "01_GT/TRA/man_track.txt", lambda f: edit(f, "1 0 2 0", "1 0 4 0")),  # ends after its daughter
    ("invalid-lineage", "01_GT/TRA/man_track.txt", lambda f: edit(f, "2 3 5 1", "2 3 5 9")),  # unknown parent
    ("invalid-lineage", "01_GT/TRA/man_track.txt", lambda f: edit(f, "4 0 5 0", "1 0 5 0")),  # listed twice
    ("invalid-lineage", "01_GT/TRA/man_track.txt", lambda f: edit(f, "4 0 5 0", "4 0 five 0")),
    ("unlisted-object", "01_GT/TRA", lambda f: edit(f, "4 0 5 0\n", "")),
    ("unlisted-object", "01_GT/TRA", lambda f: edit(f, "4 0 5 0", "4 0 3 0")),
    ("missing-object", "01_GT/TRA", lambda f: edit(f, "4 0 5 0\n", "4 0 5 0\n7 1 2 0\n")),
    ("missing-object", "01_GT/TRA", lambda f: tifffile.imwrite(mask_of(f), np.zeros((32, 32), np.uint16))),
]


def test_a_good_movie_has_only_notes(made: Path) -> None:
    assert [(finding.severity, finding.code) for finding in check_folder(made)] == [
        ("note", "few-divisions"),
        ("note", "no-split-column"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "file", "plant"), PLANTS, ids=[f"{code} {file}" for code, file, _ in PLANTS])
def test_what_is_planted_is_found(code: str, file: str, plant: Callable[[Path], object], folder: Path) -> None:
    plant(folder)
    (finding,) = serious(check_folder(folder))
    assert (finding.code, finding.severity, finding.file) == (code, "error", file)
    assert finding.problem
    assert finding.remedy


def test_blank_frames_are_a_warning_that_names_them(folder: Path) -> None:
    for index in (2, 4):
        tifffile.imwrite(frame_of(folder, index), np.full((32, 32), 3, np.uint8))
    (finding,) = serious(check_folder(folder))
    assert (finding.code, finding.severity) == ("constant-image", "warning")
    assert "2 of 6 frames (2, 4)" in finding.problem


def test_a_parent_after_its_child_is_named(folder: Path) -> None:
    edit(folder, "1 0 2 0", "1 4 5 0")
    (finding,) = serious(check_folder(folder))
    assert "a parent must end before its daughter begins" in finding.problem


def test_objects_without_a_track_are_named_with_their_frames(folder: Path) -> None:
    edit(folder, "4 0 5 0", "4 0 3 0")
    (finding,) = serious(check_folder(folder))
    where = "4 in TRA/man_track004.tif, 4 in TRA/man_track005.tif"
    assert finding.problem == f"2 objects of the masks are not in man_track.txt: {where}"


def test_movies_of_volumes_are_distinguished_from_movies_of_planes(tmp_path: Path) -> None:
    write_movie(tmp_path / "volumes", (4, 32, 32))
    assert serious(check_folder(tmp_path / "volumes", axes="ZYX")) == []
    (finding,) = serious(check_folder(tmp_path / "volumes", axes="YX"))
    assert finding.code == "wrong-axes"


def test_a_movie_alone_is_no_error_of_its_folder_and_one_of_a_training(made: Path) -> None:
    dataset = open_dataset(made)
    assert serious(check_folder(made)) == []
    (finding,) = serious(check_dataset(dataset))
    assert finding.code == "split-missing"
    assert "data.validation" in finding.remedy


@pytest.mark.slow
def test_the_same_movie_to_train_and_to_validate_on_is_found(made: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    write_movie(tmp_path / "other", seed=1)

    def parts(validation: Path) -> list[Finding]:
        sets = [(open_dataset(made), "train"), (open_dataset(validation), "val")]
        given = [
            replace(one, items=tuple(replace(item, split=split) for item in one.items), derived_split=False)
            for one, split in sets
        ]
        return serious(check_dataset(join_datasets(given)))

    assert [finding.code for finding in parts(copy)] == ["duplicate-across-splits"]
    assert parts(tmp_path / "other") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Fluo-N2DL-HeLa", "DIC-C2DH-HeLa", "Fluo-N2DH-SIM+"])
def test_real_movies_have_only_notes(name: str, shared_data: Path) -> None:
    assert serious(check_folder(shared_data / "tracking" / name)) == []


def serious(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity != "note"]

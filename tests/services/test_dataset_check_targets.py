"""The check of target images: every fault is planted and found."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cytoray_analysis.images import image_from_array, read_image, write_image
from cytoray_services.datasets.synthetic.label_free import make_label_free
from folder_checks import check_folder

PAIRS = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "cells"
    make_label_free(folder, images=PAIRS, size=128, seed=2)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "cells"))


def target_of(folder: Path, index: int = 1) -> Path:
    return folder / "targets" / f"{index:04d}.tif"


def alter(path: Path, change: Callable[[np.ndarray], np.ndarray], axes: str = "YX") -> None:
    write_image(path, image_from_array(change(read_image(path).read()), axes))


def nan(pixels: np.ndarray) -> np.ndarray:
    changed = pixels.astype(np.float32)
    changed[0, 0] = np.nan
    return changed


def shift(folder: Path, indices: range, y: int, x: int) -> None:
    for index in indices:
        alter(target_of(folder, index), lambda pixels: np.roll(pixels, (y, x), axis=(0, 1)))


def copy(folder: Path, index: int, change: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels) -> None:
    image = read_image(folder / "inputs" / f"{index:04d}.tif").read()
    alter(target_of(folder, index), lambda _: change(image).astype(np.float32))


def copy_all(folder: Path) -> None:
    for index in range(PAIRS):
        copy(folder, index)


def mirror_all(folder: Path) -> None:
    for index in range(PAIRS):
        alter(target_of(folder, index), lambda pixels: pixels[::-1])


PLANTS: list[tuple[str, str, str, Callable[[Path], object]]] = [
    ("missing-file", "error", "targets/0001.tif", lambda f: target_of(f).unlink()),
    ("unreadable", "error", "targets/0001.tif", lambda f: target_of(f).write_text("no pixels")),
    ("truncated", "error", "targets/0001.tif", lambda f: target_of(f).write_bytes(target_of(f).read_bytes()[:8000])),
    ("not-finite", "error", "targets/0001.tif", lambda f: alter(target_of(f), nan)),
    ("size-mismatch", "error", "targets/0001.tif", lambda f: alter(target_of(f), lambda pixels: pixels[:, 1:])),
    ("wrong-axes", "error", "targets/0001.tif", lambda f: alter(target_of(f), lambda p: np.stack([p, p]), "TYX")),
    ("wrong-channels", "error", "targets/0001.tif", lambda f: alter(target_of(f), lambda p: np.stack([p, p]), "CYX")),
    ("constant-target", "warning", "targets/0001.tif", lambda f: alter(target_of(f), np.zeros_like)),
    ("shifted-target", "warning", "targets/0001.tif", lambda f: shift(f, range(1, 2), 7, -4)),
    ("shifted-target", "error", ".", lambda f: shift(f, range(PAIRS), 7, -4)),
    ("turned-target", "warning", "targets/0001.tif", lambda f: alter(target_of(f), lambda p: p[:, ::-1])),
    ("turned-target", "warning", "targets/0001.tif", lambda f: alter(target_of(f), lambda p: p.T)),
    ("turned-target", "error", ".", mirror_all),
    ("copied-target", "warning", "targets/0001.tif", lambda f: copy(f, 1)),
    ("copied-target", "warning", "targets/0001.tif", lambda f: copy(f, 1, lambda p: p.astype(float) * 0.3 + 7)),
    ("copied-target", "warning", "targets/0001.tif", lambda f: copy(f, 1, lambda p: p.max() - p)),
    ("copied-target", "warning", ".", copy_all),
]


@pytest.mark.slow
def test_good_pairs_have_no_findings(made: Path) -> None:
    assert check_folder(made) == []


@pytest.mark.slow
@pytest.mark.parametrize(("code", "severity", "file", "plant"), PLANTS, ids=[f"{p[0]} {p[1]} {p[2]}" for p in PLANTS])
def test_what_is_planted_is_found(
    code: str, severity: str, file: str, plant: Callable[[Path], object], folder: Path
) -> None:
    plant(folder)
    (finding,) = check_folder(folder)
    assert (finding.code, finding.severity, finding.file) == (code, severity, file)
    assert finding.problem
    assert finding.remedy


def test_a_shift_of_all_targets_says_how_to_undo_it(folder: Path) -> None:
    shift(folder, range(PAIRS), 7, -4)
    (finding,) = check_folder(folder)
    assert finding.problem == f"{PAIRS} of {PAIRS} targets are shifted from their images, all by the same distance"
    moved = re.search(r"by (\S+) along Y, (\S+) along X", finding.remedy)
    assert moved is not None
    assert [float(number) for number in moved.groups()] == pytest.approx([-7.0, 4.0], abs=0.5)


def test_pairs_that_are_shifted_otherwise_are_named_beside_the_error_of_the_set(folder: Path) -> None:
    shift(folder, range(1, PAIRS), 7, -4)
    shift(folder, range(1), -20, 12)
    whole, one = check_folder(folder)
    assert (whole.severity, whole.file, one.severity, one.file) == ("error", ".", "warning", "targets/0000.tif")
    assert "7 of 8" in whole.problem


@pytest.mark.slow
def test_shifts_that_differ_are_warnings(folder: Path) -> None:
    for index in range(PAIRS):
        shift(folder, range(index, index + 1), 5 + 3 * index, 9 - 4 * index)
    found = check_folder(folder)
    assert {(finding.severity, finding.code) for finding in found} == {("warning", "shifted-target")}
    assert len(found) >= PAIRS - 1


def test_a_target_that_shows_something_else_is_not_called_shifted(folder: Path) -> None:
    noise = np.random.default_rng(0).normal(1000.0, 100.0, (128, 128))
    alter(target_of(folder), lambda _: gaussian_filter(noise, 4.0).astype(np.uint16))
    assert "shifted-target" not in {finding.code for finding in check_folder(folder)}


@pytest.mark.slow
@pytest.mark.parametrize(("volume", "channels"), [(False, 1), (False, 2), (True, 1)])
def test_stacks_with_planes_or_stacks_as_targets_have_no_findings(tmp_path: Path, volume: bool, channels: int) -> None:
    make_label_free(tmp_path / "cells", images=4, size=96, planes=5, volume=volume, channels=channels)
    assert check_folder(tmp_path / "cells") == []


def test_one_dark_channel_of_two_is_named(tmp_path: Path) -> None:
    make_label_free(tmp_path / "cells", images=4, size=96, channels=2)
    alter(target_of(tmp_path / "cells"), lambda p: np.stack([p[0], np.full_like(p[1], 7)]), "CYX")
    (finding,) = check_folder(tmp_path / "cells")
    assert finding.code == "constant-target"
    assert "channel 'channel 1' has the value 7" in finding.problem


@pytest.mark.slow
def test_real_pairs_raise_nothing(shared_data: Path) -> None:
    real = shared_data / "labelfree" / "ecoli_phase_yfp"
    columns = {"input": "input_phase", "target": "target_yfp"}
    assert check_folder(real, columns=columns) == []

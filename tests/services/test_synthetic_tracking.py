from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.errors import DatasetError, RequestError
from cytoray_analysis.tracking.ctc import read_masks, read_movie, read_truth
from cytoray_services.datasets.synthetic.cells import draw_movie
from cytoray_services.datasets.synthetic.tracking import make_tracking


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("movies") / "set"
    assert len(make_tracking(folder, movies=2, frames=8, size=96, seed=3).items) == 2
    return folder


def test_movies_have_a_valid_lineage_with_divisions(movies: Path) -> None:
    truths = [read_truth(movies / f"{name}_GT") for name in ("01", "02")]
    assert sum(truth.divisions.size for truth in truths) > 0
    assert all(read_movie(movies / name).shape == (8, 96, 96) for name in ("01", "02"))
    assert all(list(truth.outlines) == list(range(8)) for truth in truths)


def test_every_marker_lies_in_the_outline_of_its_cell(movies: Path) -> None:
    for name in ("01", "02"):
        markers = read_masks(movies / f"{name}_GT" / "TRA").read()
        outlines = read_masks(movies / f"{name}_ST" / "SEG").read()
        assert np.array_equal(outlines[markers > 0], markers[markers > 0])
        for frame, outline in zip(markers, outlines, strict=True):
            assert set(np.unique(frame)) == set(np.unique(outline))


def test_daughters_lie_on_both_sides_of_their_mother(movies: Path) -> None:
    for name in ("01", "02"):
        truth = read_truth(movies / f"{name}_GT")
        places = dict(zip(zip(truth.track, truth.frame, strict=True), truth.centroid, strict=True))
        for mother in truth.divisions:
            end = truth.end[truth.track_id == mother][0]
            one, two = (places[(d, end + 1)] - places[(mother, end)] for d in truth.track_id[truth.parent == mother])
            assert np.linalg.norm(one + two) < 2 * np.linalg.norm(one - two)


def test_the_same_seed_gives_the_same_bytes_however_many_movies(movies: Path, tmp_path: Path) -> None:
    make_tracking(tmp_path / "again", movies=1, frames=8, size=96, seed=3)
    files = sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.*"))
    assert len(files) == 3 * 8 + 1
    for file in files:
        assert (tmp_path / "again" / file).read_bytes() == (movies / file).read_bytes()


def test_cells_are_numbered_once() -> None:
    seen: dict[int, list[int]] = {}
    for frame, (image, labels, cells) in enumerate(draw_movie(np.random.default_rng(1), (96, 96), 10)):
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
        assert {cell.track for cell in cells} == set(np.unique(labels)) - {0}
        for cell in cells:
            seen.setdefault(cell.track, []).append(frame)
    assert all(frames == list(range(frames[0], frames[-1] + 1)) for frames in seen.values())


def test_folders_that_hold_something_and_odd_sizes_are_refused(movies: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected a new or empty folder, .* contains files"):
        make_tracking(movies)
    with pytest.raises(RequestError, match="1 to 99 movies"):
        make_tracking(tmp_path / "new", movies=100)
    with pytest.raises(RequestError, match="at least 64"):
        make_tracking(tmp_path / "new", size=32)

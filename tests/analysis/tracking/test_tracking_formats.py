from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cytoray_analysis.errors import DatasetError, MissingFileError
from cytoray_analysis.tracking.formats import divisions_csv, edges, read_geff, tracks_csv, write_geff, write_tracks_csv


@pytest.mark.parametrize("depth", [None, 5])
def test_a_lineage_comes_back_from_geff(write_sample: Callable[..., Any], depth: int | None, tmp_path: Path) -> None:
    truth = write_sample(depth).truth
    write_geff(tmp_path / "cells.geff", truth, pixel_size={"Z": 2.0, "Y": 0.5, "X": 0.5})
    again = read_geff(tmp_path / "cells.geff", truth.shape, truth.frames)
    assert again.table.tolist() == truth.table.tolist()
    assert np.array_equal(again.label, truth.label)
    assert np.allclose(again.centroid, truth.centroid)


def test_geff_has_the_confidence_of_divisions(sample: Any, tmp_path: Path) -> None:
    from geff import validate_structure
    from geff.core_io import read_to_memory

    sure = np.where(sample.truth.track_id == 1, 0.9, np.nan).astype(np.float32)
    truth = replace(sample.truth, division_confidence=sure)
    write_geff(tmp_path / "cells.geff", truth)
    validate_structure(tmp_path / "cells.geff")
    stored = read_to_memory(tmp_path / "cells.geff")["node_props"]["division_confidence"]
    known = ~np.asarray(stored["missing"])
    np.testing.assert_array_equal(known, (truth.track == 1) & (truth.frame == 2))
    again = read_geff(tmp_path / "cells.geff", truth.shape, truth.frames)
    np.testing.assert_array_equal(again.division_confidence, sure)


def test_geff_passes_the_validation_of_its_own_library(sample: Any, tmp_path: Path) -> None:
    from geff import GeffMetadata, validate_structure

    write_geff(tmp_path / "cells.geff", sample.truth, pixel_size={"Y": 0.5, "X": 0.5})
    write_geff(tmp_path / "cells.geff", sample.truth, pixel_size={"Y": 0.5, "X": 0.5})  # replaces
    validate_structure(tmp_path / "cells.geff")
    metadata = GeffMetadata.read(tmp_path / "cells.geff")
    assert [axis.name for axis in metadata.axes or []] == ["t", "y", "x"]
    assert [axis.scale for axis in metadata.axes or []] == [None, 0.5, 0.5]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_edges_lead_from_an_object_to_what_it_becomes(sample: Any) -> None:
    truth = sample.truth
    named = {
        ((int(truth.frame[a]), int(truth.track[a])), (int(truth.frame[b]), int(truth.track[b])))
        for a, b in edges(truth)
    }
    assert len(named) == len(edges(truth)) == len(truth.frame) - len(truth.track_id) + 3
    assert {((2, 1), (3, 2)), ((2, 1), (3, 3)), ((1, 4), (3, 5)), ((0, 7), (1, 7))} <= named


def test_the_csv_is_what_a_tracks_layer_wants(sample: Any, tmp_path: Path) -> None:
    write_tracks_csv(tmp_path / "tracks.csv", sample.truth)
    text = (tmp_path / "tracks.csv").read_text()
    assert text == tracks_csv(sample.truth)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == ["track_id", "t", "y", "x", "parent"]
    assert rows[0] == {"track_id": "1", "t": "0", "y": "20.000", "x": "12.000", "parent": "0"}
    order = [(int(row["track_id"]), int(row["t"])) for row in rows]
    assert order == sorted(order)
    assert {(row["track_id"], row["parent"]) for row in rows if row["parent"] != "0"} == {
        ("2", "1"),
        ("3", "1"),
        ("5", "4"),
    }


def test_divisions_are_listed_with_the_least_sure_first(sample: Any) -> None:
    truth = sample.truth
    (mother,) = truth.divisions
    (row,) = csv.DictReader(io.StringIO(divisions_csv(truth)))
    assert (row["mother"], row["frame"], row["daughters"], row["confidence"]) == ("1", "2", "2 3", "")
    last = (truth.track == mother) & (truth.frame == 2)
    assert [float(row["y"]), float(row["x"])] == pytest.approx(truth.centroid[last][0], abs=1e-3)
    # A second division, of which the linker is less sure.
    parent = np.where(truth.track_id == 6, 4, truth.parent)
    sure = np.where(truth.track_id == 1, 0.9, np.where(truth.track_id == 4, 0.6, np.nan)).astype(np.float32)
    rows = list(csv.DictReader(io.StringIO(divisions_csv(replace(truth, parent=parent, division_confidence=sure)))))
    assert [(row["mother"], row["daughters"], row["confidence"]) for row in rows] == [
        ("4", "5 6", "0.600"),
        ("1", "2 3", "0.900"),
    ]


def test_what_is_no_geff_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_geff(tmp_path / "none.geff", (4, 4))
    (tmp_path / "empty.geff").mkdir()
    with pytest.raises(DatasetError, match="expected a GEFF"):
        read_geff(tmp_path / "empty.geff", (4, 4))

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.column_names import unique_names
from cytoray_analysis.object_table import measure_objects
from cytoray_analysis.tasks.image_scores import score_images

NAMES = st.lists(st.sampled_from(["DAPI", "DAPI_2", "DAPI_3", "GFP", ""]), max_size=8)


@given(NAMES)
def test_names_become_different_and_first_ones_stay(names: list[str]) -> None:
    unique = unique_names(names)
    assert len(set(unique)) == len(names)
    for place, (name, own) in enumerate(zip(names, unique, strict=True)):
        assert own == name if name not in names[:place] else own.startswith(f"{name}_")


def test_channels_of_one_name_have_columns_of_their_own() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[2:5, 2:5] = 1
    image = np.stack([np.full((8, 8), 3.0), np.full((8, 8), 7.0)])
    table = measure_objects(labels, image, channels=("DAPI", "DAPI"))
    assert table["intensity_mean_DAPI"].tolist() == [3.0]
    assert table["intensity_mean_DAPI_2"].tolist() == [7.0]
    assert {"intensity_max_DAPI", "intensity_max_DAPI_2"} <= set(table)


def test_channels_of_one_name_have_scores_of_their_own() -> None:
    truth = np.random.default_rng(0).random((2, 16, 16)).astype(np.float32)
    scores = score_images([np.stack([truth[0], -truth[1]])], [truth], ("DAPI", "DAPI"))
    assert scores["pearson/DAPI"] > 0.99
    assert scores["pearson/DAPI_2"] < -0.99

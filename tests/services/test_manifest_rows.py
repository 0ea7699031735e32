"""Manifests as spreadsheets and people write them: read as meant, or an error with the line."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytoray_analysis.errors import DatasetError
from cytoray_services.datasets import Dataset, open_dataset
from cytoray_services.datasets.split_names import SPLITS, nearest_split
from folder_checks import check_folder


def opened(folder: Path, text: str) -> Dataset:
    for name in ("a", "b"):
        for part in ("images", "masks"):
            (folder / part).mkdir(exist_ok=True)
            (folder / part / f"{name}.tif").write_bytes(name.encode())
    (folder / "manifest.csv").write_bytes(text.encode())
    return open_dataset(folder)


ROWS = (("images/a.tif", "masks/a.tif", "train"), ("images/b.tif", "masks/b.tif", "val"))


@pytest.mark.parametrize(
    "text",
    [
        "image,mask,split\nimages/a.tif,masks/a.tif,train\nimages/b.tif,masks/b.tif,val\n",
        "image;mask;split\r\nimages/a.tif;masks/a.tif;train\r\nimages/b.tif;masks/b.tif;val\r\n",
        "image\tmask\tsplit\nimages/a.tif\tmasks/a.tif\ttrain\nimages/b.tif\tmasks/b.tif\tval\n",
        "sep=;\nimage;mask;split\nimages/a.tif;masks/a.tif;train\nimages/b.tif;masks/b.tif;val\n",
        "\n image , mask , split \n\nimages/a.tif , masks/a.tif,\ttrain\n,,\n  \nimages/b.tif,masks/b.tif, val\n,,\n",
        "image,mask,split,,\nimages/a.tif,masks/a.tif,train,,\nimages/b.tif,masks/b.tif,val,,\n",
        'image,mask,split\n"images/a.tif", "masks/a.tif", "train"\nimages/b.tif,masks/b.tif,val\n',
        "image,mask,split\rimages/a.tif,masks/a.tif,train\rimages/b.tif,masks/b.tif,val\r",
        "image,mask,split\nimages\\a.tif,masks\\a.tif,train\n.\\images\\b.tif,./masks/b.tif,val\n",
    ],
)
def test_a_manifest_is_read_as_meant(tmp_path: Path, text: str) -> None:
    dataset = opened(tmp_path, text)
    found = tuple(
        (*(dataset.name_of(path) for path in (item.image, item.truth) if path), item.split) for item in dataset.items
    )
    assert found == ROWS
    assert all(item.image.exists() and item.truth and item.truth.exists() for item in dataset.items)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "image,mask,split\nimages/a.tif,masks/a.tif,trian\n",
            "line 2: expected the name of a split, such as train, got 'trian'",
        ),
        (
            "image,mask,split\n\nimages/a.tif,masks/a.tif,Val\n",
            "line 3: expected the name of a split, such as val, got 'Val'",
        ),
        (
            "image,mask,split\nimages/a.tif,masks/a.tif,\n",
            "line 2: expected the name of a split, such as train, got an empty",
        ),
        ("image,mask,split\nimages/a.tif,masks/a.tif\n", "line 2: .* got an empty one"),
        ("image,mask,split\nimages/a.tif,masks/a.tif,all\n", "line 2: .*'all', which means all splits"),
        ("image,mask,split\n,masks/a.tif,train\n", "line 2: expected an image in the column 'image'"),
        ("image,mask,split\nimages/a,b.tif,masks/a.tif,train\n", "line 2: expected 3 values as in the header, got 4"),
        ("image,mask,mask\nimages/a.tif,masks/a.tif,masks/b.tif\n", "line 1: expected each column once, got 'mask' 2"),
        ('image,mask,split\n"images/a.tif,masks/a.tif,train\n', "line 2: expected CSV: "),
        ('image,mask,split\n"images/a.tif\n,m"asks/a.tif,train\n', "line 3: "),
        ('image,mask,split\n"images/a.tif\nx",masks/a.tif,train\n', "line 3: expected the path of a file"),
        ("image,mask,group\nimages/a.tif,masks/a.tif,one\nimages/b.tif,masks/b.tif,\n", "line 3: expected a group"),
    ],
)
def test_what_cannot_be_meant_is_an_error_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DatasetError, match=said) as caught:
        opened(tmp_path, text)
    assert caught.value.hint


def test_a_typo_of_a_split_is_a_finding_of_the_check(tmp_path: Path) -> None:
    opened(tmp_path, "image,mask\nimages/a.tif,masks/a.tif\n")
    (tmp_path / "manifest.csv").write_text("image,mask,split\nimages/a.tif,masks/a.tif,trian\n")
    (finding,) = check_folder(tmp_path)
    assert (finding.severity, finding.code) == ("error", "unknown-split")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *((known, None) for known in SPLITS),
        *(
            (other, None)
            for other in ("fold1", "holdout", "train2", "test_3", "extra", "unlabelled", "dev", "calibration")
        ),
        *((name, "train") for name in ("Train", "TRAIN", " train", "trian", "tran", "trainn", "training", "tarin", "")),
        *((name, "val") for name in ("Val", "vall", "vla", "validation", "valid")),
        *((name, "test") for name in ("Test", "tset", "tests", "tst", "testing")),
    ],
)
def test_names_near_a_known_split_are_mistakes(name: str, meant: str | None) -> None:
    assert nearest_split(name) == meant


@given(st.sampled_from(SPLITS), st.data())
def test_two_neighbouring_letters_swapped_are_always_a_mistake(known: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(known) - 2))
    swapped = known[:at] + known[at + 1] + known[at] + known[at + 2 :]
    assert nearest_split(swapped) == (None if swapped == known else known)


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_written_otherwise_than_on_the_disk(
    tmp_path: Path, written: Literal["NFC", "NFD"], stored: Literal["NFC", "NFD"]
) -> None:
    inside = unicodedata.normalize(stored, "Zürich/télo.tif")
    path = tmp_path / inside
    path.parent.mkdir()
    path.write_bytes(b"x")
    name = unicodedata.normalize(written, inside)
    (tmp_path / "manifest.csv").write_text(f"image,mask,split\n{name},{name},train\n", encoding="utf-8")
    (item,) = open_dataset(tmp_path).items
    assert item.image == item.truth == path


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(
    st.integers(0, 200),
    st.sampled_from(["", '"', ";", ",", "\n", "\x00", "é", " ", "\\", "x" * 300]),
    st.integers(0, 3),
)
def test_any_damaged_manifest_is_read_or_one_of_our_errors(tmp_path: Path, at: int, new: str, cut: int) -> None:
    text = "image,mask,split,note\n" + "".join(f'images/{n}.tif,masks/{n}.tif,train,"a, b"\n' for n in "ab")
    at = min(at, len(text))
    (tmp_path / "manifest.csv").write_text(text[:at] + new + text[at + cut :], encoding="utf-8")
    try:
        dataset = open_dataset(tmp_path)
    except DatasetError:
        return
    assert all(item.image.name for item in dataset.items)

"""Names of images: what is suffix, what is name, and which truth belongs to which image."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.images.names import (
    IMAGE_SUFFIXES,
    TRUTH_WORDS,
    image_stem,
    image_suffix,
    is_image_name,
    normal_name,
    truth_stem,
)

STEMS = st.from_regex(r"[A-Za-z0-9é][A-Za-z0-9 ._é-]{0,20}[A-Za-z0-9é]", fullmatch=True).filter(
    lambda stem: not image_suffix(stem) and truth_stem(stem) == normal_name(stem) and not stem.lower().endswith(".ome")
)


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("plate1.A0.tif", "plate1.A0", ".tif"),
        ("plate1.A0", "plate1.A0", ""),
        ("dose_0.5uM.3.OME.TIFF", "dose_0.5uM.3", ".OME.TIFF"),
        ("folder.tif/x.ome.zarr", "x", ".ome.zarr"),
        ("x.ome.btf", "x", ".ome.btf"),
        ("slide.svs", "slide", ".svs"),
        ("brain.nii.gz", "brain", ".nii.gz"),
        ("v1.2", "v1.2", ""),
        (".tif", ".tif", ""),
        ("notes.txt", "notes.txt", ""),
    ],
)
def test_only_what_says_a_format_is_a_suffix(name: str, stem: str, suffix: str) -> None:
    assert (image_stem(name), image_suffix(name)) == (stem, suffix)


@given(STEMS, st.sampled_from(IMAGE_SUFFIXES), st.booleans(), st.sampled_from(TRUTH_WORDS), st.sampled_from("_-. "))
def test_a_truth_has_the_stem_of_its_image_whatever_stands_behind(
    stem: str, suffix: str, capitals: bool, word: str, joint: str
) -> None:
    end = suffix.upper() if capitals else suffix
    assert image_stem(stem + end) == normal_name(stem)
    for name in (f"{stem}{joint}{word}{end}", f"{stem}.tif{joint}{word}{end}", f"{stem}.ome{joint}{word}{end}"):
        assert truth_stem(name) == normal_name(stem)


@given(st.text(min_size=1, max_size=30).filter(lambda text: "/" not in text and "\0" not in text))
def test_any_name_has_a_stem_that_two_spellings_share(name: str) -> None:
    composed, decomposed = (image_stem(unicodedata.normalize(form, name)) for form in ("NFC", "NFD"))
    assert composed == decomposed
    assert normal_name(name).startswith(image_stem(name))


def test_hidden_files_and_tables_are_no_images() -> None:
    names = ["a.tif", "a.PNG", "._a.tif", ".tif", "man_track.txt", "Thumbs.db", "x_seg.npy", "b.ome.zarr"]
    assert [name for name in names if is_image_name(name)] == ["a.tif", "a.PNG", "b.ome.zarr"]


def test_capitals_make_two_names() -> None:
    assert image_stem("A1.tif") != image_stem("a1.tif")

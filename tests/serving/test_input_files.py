"""Which files of a folder are inputs, and what is said of the others."""

from __future__ import annotations

import glob
import io
import os
import zipfile
from pathlib import Path

import pytest

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_serving.inputs import open_input
from cytoray_serving.predict.input_files import Inputs, find_inputs, left_out_lines, reason_left_out
from serving_samples import noise, tiff_bytes

TIFF = tiff_bytes(noise(8, 8))


def put(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in files.items():
        (folder / name.replace("__", ".")).write_bytes(body)
    return folder


def names(found: Inputs) -> list[str]:
    return [one.relative.as_posix() for one in found.files]


def left_out(found: Inputs) -> dict[str, str]:
    return {one.path.name: one.reason for one in found.left_out}


def zipped(*members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member in members:
            archive.writestr(member, "{}")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name", ["a.svs", "a.lsm", "a.btf", "a.ome.btf", "a.flex", "a.TIF", "a", "a.dat", "a.stk", "a.2", "a.qptiff"]
)
def test_whatever_holds_a_tiff_is_an_input(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(TIFF)
    assert reason_left_out(tmp_path / name) is None


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a", b"\x89PNG\r\n\x1a\n"),
        ("a.bin", b"\xff\xd8\xff\xe0"),
        ("a.x", b"ZISRAWFILE"),
        ("a.x", b"\xda\xce\xbe\x0a"),
        ("a.zip", zipped("a.zarr/zarr.json")),
        ("a.tif", b"damaged"),  # which is an error of its own, and no reason to pass it over
        ("a.ome.tif", b""),
    ],
)
def test_formats_are_known_by_content_or_name(tmp_path: Path, name: str, start: bytes) -> None:
    (tmp_path / name).write_bytes(start.ljust(200, b"\0") if start and start[:2] != b"PK" else start)
    assert reason_left_out(tmp_path / name) is None


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("notes.txt", b"text", ".txt is not a supported image format"),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0", "operating system"),
        (".hidden.tif", TIFF, "hidden"),
        ("._a.tif", TIFF, "hidden"),
        ("report.xlsx", zipped("xl/workbook.xml"), ".xlsx is not a supported image format"),
        ("broken.zip", b"PK\x03\x04", ".zip is not a supported image format"),
        ("readme", b"text", "not a supported image format"),
        ("empty", b"", "not a supported image format"),
    ],
)
def test_other_files_are_left_out_with_a_reason(tmp_path: Path, name: str, body: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(body)
    assert reason in (reason_left_out(tmp_path / name) or "")


def test_nothing_in_a_folder_is_passed_over_without_a_word(tmp_path: Path) -> None:
    folder = put(tmp_path / "f", a__tif=TIFF, b__svs=TIFF, notes__txt=b"", Thumbs__db=b"")
    put(folder / "below", c__tif=TIFF)
    (folder / "gone.tif").symlink_to(folder / "nowhere.tif")
    (folder / "link").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.tif")
    found = find_inputs([folder], "labels")
    assert names(found) == ["a.tif", "b.svs", "gone.tif"]
    assert {path.name for path in folder.iterdir()} == {*names(found), *left_out(found)}
    assert "--recursive" in left_out(found)["below"]
    assert left_out(found)["pipe.tif"] == "not a regular file"
    (line,) = [line for line in left_out_lines(found.left_out) if "notes.txt" in line]
    assert line == f"left out of {folder}: notes.txt (.txt is not a supported image format)"


def test_folders_in_folders_are_kept(tmp_path: Path) -> None:
    folder = put(tmp_path / "f", a__tif=TIFF)
    put(folder / "B" / "C", a__tif=TIFF, notes__txt=b"")
    (folder / "B" / "loop").symlink_to(folder)
    found = find_inputs([folder], "labels", recursive=True)
    assert names(found) == ["B/C/a.tif", "a.tif"]
    assert left_out(found) == {
        "notes.txt": ".txt is not a supported image format",
        "loop": "a folder that was searched already",
    }


def test_several_folders_stay_apart(tmp_path: Path) -> None:
    folders = [put(tmp_path / name, a__tif=TIFF) for name in "AB"]
    assert names(find_inputs(folders, "labels", recursive=True)) == ["A/a.tif", "B/a.tif"]


def test_a_file_that_is_named_twice_is_one_input(tmp_path: Path) -> None:
    folder = put(tmp_path / "f", a__tif=TIFF)
    found = find_inputs([folder / "a.tif", folder, folder / ".." / "f" / "a.tif"], "labels")
    assert names(found) == ["a.tif"]
    assert [one.reason for one in found.left_out] == ["given twice, answered once"] * 2


def test_a_pattern_is_expanded_only_where_nothing_has_that_name(tmp_path: Path) -> None:
    folder = put(tmp_path / "f", **{"a__tif": TIFF, "b__tif": TIFF, "[ab]__tif": TIFF, "c__txt": b""})
    assert names(find_inputs([folder / "[ab].tif"], "labels")) == ["[ab].tif"]
    assert names(find_inputs([folder / "?.tif"], "labels")) == ["a.tif", "b.tif"]
    found = find_inputs([folder / "*"], "labels")
    assert names(found) == ["[ab].tif", "a.tif", "b.tif"]
    assert list(left_out(found)) == ["c.txt"]


@pytest.mark.parametrize(
    "pattern",
    ["*.tif", "**", "**/*.tif", "**/**/*.tif", "A/**", "?/*.tif", "A/B/../*.tif", "**/B/*", ".h*/*", "[AB]*/a*"],
)
def test_a_pattern_means_what_it_means_to_a_shell(tmp_path: Path, pattern: str) -> None:
    for folder in ("A", "A/B", "B", ".hidden", "A/.h"):
        put(tmp_path / folder, a__tif=TIFF, __b__tif=TIFF)
    put(tmp_path, a__tif=TIFF)
    meant = glob.glob(str(tmp_path / pattern), recursive=True)  # noqa: PTH207
    files = {os.path.normpath(one) for one in meant if Path(one).is_file() and not Path(one).name.startswith(".")}
    found = find_inputs([tmp_path / pattern], "labels").files
    assert {os.path.normpath(one.path) for one in found if one.error is None} == files


def test_a_pattern_does_not_go_around_in_links(tmp_path: Path) -> None:
    put(tmp_path / "A", a__tif=TIFF)
    put(tmp_path / "elsewhere", b__tif=TIFF)
    (tmp_path / "A" / "loop").symlink_to(tmp_path / "A")
    (tmp_path / "A" / "up").symlink_to(tmp_path)
    (tmp_path / "A" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "A")
    found = find_inputs([tmp_path / "A" / "**" / "*.tif"], "labels")
    assert sorted(names(found)) == ["a.tif", "b.tif"]
    assert {left_out(found)[name] for name in ("loop", "up", "back")} == {"a link to a folder above it"}


@pytest.mark.parametrize("uri", ["file:///data/a.tif", "s3://bucket/a.tif", "https://example.org/a.tif"])
def test_a_uri_is_distinguished_from_a_path_that_is_not_there(uri: str) -> None:
    (one,) = find_inputs([Path(uri)], "labels").files
    assert isinstance(one.error, RequestError)
    assert "jobs predict" in str(one.error.hint)


def test_a_pattern_keeps_folders_when_asked(tmp_path: Path) -> None:
    for name in "AB":
        put(tmp_path / name, a__tif=TIFF)
    pattern = tmp_path / "?" / "*.tif"
    assert names(find_inputs([pattern], "labels", recursive=True)) == ["A/a.tif", "B/a.tif"]
    assert names(find_inputs([pattern], "labels")) == ["a.tif", "a.tif"]


def test_what_cannot_be_an_input_fails_beside_the_others(tmp_path: Path) -> None:
    folder = put(tmp_path / "f", a__tif=TIFF)
    empty, notes = put(tmp_path / "empty"), put(tmp_path / "notes", notes__txt=b"")
    os.mkfifo(tmp_path / "pipe")
    found = find_inputs([folder, empty, notes, tmp_path / "*.czi", tmp_path / "pipe"], "labels")
    assert [type(one.error) for one in found.files] == [
        type(None),
        MissingFileError,
        MissingFileError,
        MissingFileError,
        RequestError,
    ]
    assert "notes.txt" in str(found.files[2].error)


def test_what_is_no_input_though_it_is_an_image_is_left_out(tmp_path: Path) -> None:
    folder = put(tmp_path / "f", a__tif=TIFF, answer__tif=TIFF)
    masks = put(folder / "masks", a__tif=TIFF)
    known = {masks: "named by --masks", folder / "answer.tif": "an answer"}
    found = find_inputs([folder], "labels", recursive=True, not_inputs=known)
    assert names(found) == ["a.tif"]
    assert left_out(found) == {"masks": "named by --masks", "answer.tif": "an answer"}


def test_a_folder_of_frames_is_an_input_of_models_of_movies(tmp_path: Path) -> None:
    put(tmp_path / "m" / "01", t000__tif=TIFF, t001__tif=TIFF)
    assert names(find_inputs([tmp_path / "m" / "01"], "lineage")) == ["01"]
    assert names(find_inputs([tmp_path / "m"], "lineage", recursive=True)) == ["01"]
    assert names(find_inputs([tmp_path / "m"], "labels", recursive=True)) == ["01/t000.tif", "01/t001.tif"]


def test_a_folder_of_stacks_is_an_input_of_models_of_movies_of_stacks(tmp_path: Path) -> None:
    stack, movie = tiff_bytes(noise(5, 8, 8)), tiff_bytes(noise(2, 5, 8, 8))
    put(tmp_path / "m" / "01", **{"1__tif": stack, "2__tif": stack})
    put(tmp_path / "m" / "02", **{"1__tif": movie, "2__tif": movie})
    found = find_inputs([tmp_path / "m"], "lineage", spatial_axes="ZYX", recursive=True)
    assert names(found) == ["01", "02/1.tif", "02/2.tif"]
    assert open_input(found.files[0].path).axes == "TZYX"
    found = find_inputs([tmp_path / "m" / "01"], "lineage")
    assert names(found) == ["1.tif", "2.tif"]  # each a movie for a model that looks at planes

"""Which boxes of a table are those of which input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_serving.predict.box_table import BoxTable, read_boxes
from cytoray_serving.predict.path_matching import PathMatcher, path_of_uri

A, B = Path("plate/A/img.tif"), Path("plate/B/img.tif")


def table(folder: Path, *rows: str, header: str = "image,xmin,ymin,xmax,ymax") -> Path:
    path = folder / "boxes.csv"
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def boxes_of(boxes: BoxTable, image: Path, *, among: Sequence[Path] = ()) -> list[list[float]]:
    return boxes.boxes_by(PathMatcher(among or (image,)), image, alone=len(among) < 2)


def test_images_are_distinguished_by_their_names(tmp_path: Path) -> None:
    boxes = read_boxes(table(tmp_path, "a.tif,1,2,3,4", "b.tif,5,6,7,8", "a.tif,9,9,10,10"))
    assert boxes_of(boxes, Path("elsewhere/a.tif"), among=[Path("elsewhere/a.tif"), Path("b.tif")]) == [
        [1, 2, 3, 4],
        [9, 9, 10, 10],
    ]
    with pytest.raises(RequestError, match=r"no box for c\.tif"):
        boxes_of(boxes, Path("c.tif"))


@pytest.mark.parametrize("said", ["A/img.tif", "./A/img.tif", "plate/A/img.tif", "A\\img.tif", "../A/img.tif"])
def test_images_of_one_name_are_distinguished_by_their_folders(tmp_path: Path, said: str) -> None:
    boxes = read_boxes(table(tmp_path, f"{said},1,2,3,4", "B/img.tif,5,6,7,8"))
    assert boxes_of(boxes, A, among=[A, B]) == [[1, 2, 3, 4]]
    assert boxes_of(boxes, B, among=[A, B]) == [[5, 6, 7, 8]]


def test_an_absolute_path_means_its_file(tmp_path: Path) -> None:
    boxes = read_boxes(table(tmp_path, f"{(tmp_path / 'A/img.tif').as_posix()},1,2,3,4"))
    assert boxes_of(boxes, tmp_path / "A" / "img.tif") == [[1, 2, 3, 4]]
    with pytest.raises(RequestError, match=r"no box for .*B.img\.tif; it has boxes for .*A.img\.tif"):
        boxes_of(boxes, tmp_path / "B" / "img.tif")


def test_a_name_that_two_inputs_have_is_refused(tmp_path: Path) -> None:
    boxes = read_boxes(table(tmp_path, "img.tif,1,2,3,4"))
    for path in (A, B):
        with pytest.raises(RequestError, match=r"img\.tif, which is ambiguous.*same name"):
            boxes_of(boxes, path, among=[A, B])
    assert boxes_of(boxes, A) == [[1, 2, 3, 4]]


def test_two_paths_that_may_both_be_the_input_are_refused(tmp_path: Path) -> None:
    boxes = read_boxes(table(tmp_path, "img.tif,1,2,3,4", "A/img.tif,1,2,3,4"))
    with pytest.raises(RequestError, match="ambiguous"):
        boxes_of(boxes, A)


def test_boxes_of_a_neighbour_are_not_taken(tmp_path: Path) -> None:
    boxes = read_boxes(table(tmp_path, "B/img.tif,1,2,3,4"))
    with pytest.raises(RequestError, match=r"no box for plate/A/img\.tif; it has boxes for B/img\.tif"):
        boxes_of(boxes, A)


@pytest.mark.parametrize(
    "uri", ["file:///plate/A/my%20%23img.tif", "s3://bucket/A/my #img.tif", "https://host/A/my%20%23img.tif?version=2"]
)
def test_images_of_jobs_are_named_by_the_path_of_their_uri(tmp_path: Path, uri: str) -> None:
    boxes = read_boxes(table(tmp_path, "A/my #img.tif,1,2,3,4"))
    assert boxes_of(boxes, path_of_uri(uri)) == [[1, 2, 3, 4]]


def test_composed_and_decomposed_names_are_one(tmp_path: Path) -> None:
    boxes = read_boxes(table(tmp_path, "zelle\u0301.tif,1,2,3,4"))
    assert boxes_of(boxes, Path("zell\u00e9.tif")) == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xmin,ymin,xmax\n1,2,3\n", "ymax"),
        ("xmin,ymin,xmax,ymax\n1,2,three,4\n", "line 2"),
        ("xmin,ymin,xmax,ymax\n1,2,3\n", "line 2"),
        ("xmin,ymin,xmax,ymax,xmin\n1,2,3,4,5\n", "'xmin' 2 times"),
        ("xmin,ymin,xmax,ymax\n", "no box"),
        ("", "no header"),
    ],
)
def test_a_csv_without_boxes_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(RequestError, match=message):
        boxes_of(read_boxes(tmp_path / "boxes.csv"), Path("a.tif"))


def test_a_csv_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"boxes\.csv does not exist"):
        read_boxes(tmp_path / "boxes.csv")


def test_a_csv_for_several_images_must_name_them(tmp_path: Path) -> None:
    boxes = read_boxes(table(tmp_path, "1,2,3,4", header="xmin,ymin,xmax,ymax"))
    assert boxes_of(boxes, A) == [[1, 2, 3, 4]]
    with pytest.raises(RequestError, match="several inputs"):
        boxes_of(boxes, A, among=[A, B])


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_table_of_a_spreadsheet_is_read_as_a_manifest_is(tmp_path: Path, separator: str) -> None:
    text = "\ufeffimage,xmin,ymin,xmax,ymax\r\n\r\na.tif , 1,2,3,4\r\n,,,,\r\n".replace(",", separator)
    (tmp_path / "boxes.csv").write_text(text, encoding="utf-8")
    assert boxes_of(read_boxes(tmp_path / "boxes.csv"), Path("a.tif")) == [[1, 2, 3, 4]]


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="got the folder"):
        read_boxes(tmp_path)

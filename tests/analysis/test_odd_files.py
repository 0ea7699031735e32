"""Files as odd programs write them: read as what they show, or refused in words."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import imageio.v3
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Picture

from conformance.handmade import SHORT, page, tiff_of
from cytoray_analysis.errors import RequestError, UnreadableImageError
from cytoray_analysis.images import Image, list_series, read_image, write_image
from cytoray_analysis.selection import Selection

GREY = np.random.default_rng(0).integers(0, 256, (24, 20), np.uint8)
OPAQUE = np.full_like(GREY, 255)
COLOURS = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint16) * 257
RAMP = np.arange(256, dtype=np.uint16)[:, None].repeat(3, 1) * 257
FRAMES = np.stack([GREY + 1 + number for number in range(6)]).clip(1)


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def handmade(*samples: np.ndarray, photometric: int = 1, without: int = 0, **tags: Any) -> bytes:
    """Write a page of samples that lie beside each other."""
    count = len(samples)
    more = {"t277": (SHORT, [count]), "t258": (SHORT, [8] * count), **tags}
    given = {code: value for code, value in page(GREY.shape, 8, photometric, **more).items() if code != without}
    return tiff_of([(given, [np.dstack(samples).tobytes()])])


def palette(table: np.ndarray, *samples: np.ndarray, **tags: Any) -> bytes:
    return handmade(*samples, photometric=3, t320=(SHORT, table.T.reshape(-1).tolist()), **tags)


def test_white_is_zero_in_real_numbers_is_inverted_about_one() -> None:
    image = read_image(tiff((GREY / 255).astype(np.float32), photometric="miniswhite"))
    np.testing.assert_allclose(image.read(), 1 - GREY / 255, atol=1e-6)


def test_a_file_that_does_not_say_what_zero_is_shows_black_there() -> None:
    np.testing.assert_array_equal(read_image(handmade(GREY, without=262)).read(), GREY)


@pytest.mark.parametrize(
    ("table", "expected"),
    [(COLOURS, np.moveaxis(COLOURS[GREY] // 257, -1, 0)), (RAMP[::-1], 255 - GREY), (RAMP, GREY)],
    ids=["colours", "reversed grey", "ramp"],
)
def test_transparency_beside_a_palette_is_dropped(table: np.ndarray, expected: np.ndarray, tmp_path: Path) -> None:
    data = palette(table, GREY, OPAQUE, t338=(SHORT, [2]))
    (tmp_path / "a.tif").write_bytes(data)
    for source in (data, tmp_path / "a.tif"):
        np.testing.assert_array_equal(read_image(source).read(), expected)
        np.testing.assert_array_equal(read_image(source, labels=True).read(), GREY)


def test_a_table_that_lacks_colours_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match="table of 16 colours for samples of 8 bits"):
        read_image(palette(COLOURS[:16], GREY))


def test_a_fourth_sample_that_the_file_does_not_describe_leaves_the_colours_their_names() -> None:
    image = read_image(handmade(GREY, GREY[::-1], GREY[:, ::-1], OPAQUE, photometric=2))
    assert image.channels == ("red", "green", "blue", "channel 3")


def test_a_page_that_says_where_another_is_transparent_is_no_image() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(GREY, metadata=None)
        file.write(GREY > 100, metadata=None, subfiletype=4)
    np.testing.assert_array_equal(read_image(buffer.getvalue()).read(), GREY)


def ome_with(path: Path, array: np.ndarray, changes: Mapping[str, str], **metadata: Any) -> Path:
    path.write_bytes(tiff(array, ome=True, metadata=metadata))
    text = str(tifffile.tiffcomment(path))
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    tifffile.tiffcomment(path, text.encode())
    return path


@pytest.mark.parametrize("size", ["three", "0", "-3", "2.5", ""])
def test_a_length_that_is_no_number_is_taken_from_the_pages(size: str, tmp_path: Path) -> None:
    pixels, names = FRAMES.reshape(2, 3, 24, 20), {"Name": ["DAPI", "GFP"]}
    change = {'SizeZ="3"': f'SizeZ="{size}"'}
    image = read_image(ome_with(tmp_path / "a.ome.tif", pixels, change, axes="CZYX", Channel=names))
    assert (image.axes, image.channels) == ("CZYX", ("DAPI", "GFP"))
    np.testing.assert_array_equal(image.read(), pixels)


def test_lengths_that_do_not_fit_the_pages_leave_a_plain_stack_and_say_so(tmp_path: Path) -> None:
    change = {'SizeC="1"': 'SizeC="2"', 'SizeZ="5"': 'SizeZ="x"'}
    image = read_image(ome_with(tmp_path / "a.ome.tif", FRAMES[:5], change, axes="ZYX"))
    assert [warning.code for warning in image.warnings] == ["metadata-unreadable"]
    np.testing.assert_array_equal(image.read(), FRAMES[:5])


@pytest.mark.parametrize("written", ["0.499", "0,499"])
def test_a_scanner_may_write_a_decimal_comma(written: str) -> None:
    about = f"Aperio Image Library v11\r\n20x24 |AppMag = 20|MPP = {written}|Left = 1"
    colours = np.dstack([GREY, GREY[::-1], GREY])
    image = read_image(tiff(colours, photometric="rgb", tile=(16, 16), description=about, metadata=None))
    assert image.pixel_size == pytest.approx({"Y": 0.499, "X": 0.499})


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [("0.5", " \u00b5m ", 0.5), ("1e-300", "\u00b5m", None), ("1e300", "\u00b5m", None), ("nan", "\u00b5m", None)],
)
def test_a_size_that_no_pixel_has_is_unknown(size: str, unit: str, expected: float | None, tmp_path: Path) -> None:
    sizes = {f"PhysicalSize{axis}{end}": value for axis in "XY" for end, value in (("", size), ("Unit", unit))}
    image = read_image(tiff(GREY, ome=True, metadata={"axes": "YX", **sizes}))
    assert image.pixel_size == (None if expected is None else {"Y": expected, "X": expected})
    write_image(tmp_path / "out.tif", image)  # what is known can be written


@pytest.mark.parametrize("size", ["1e-300", "1e300", "1e-7"])
def test_a_size_that_no_pixel_has_is_not_taken(size: str) -> None:
    with pytest.raises(ValueError, match="expected micrometres"):
        Selection(pixel_size=size)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_has_no_other_series_than_its_one(kind: str, tmp_path: Path) -> None:
    data = imageio.v3.imwrite("<bytes>", GREY, extension=f".{kind}")
    (tmp_path / f"a.{kind}").write_bytes(data)
    for source in (data, tmp_path / f"a.{kind}"):
        assert read_image(source, selection=Selection(series="0")).axes == "YX"
        for wanted in ("1", "overview"):
            with pytest.raises(RequestError, match=f"expected one image '{wanted}'"):
                read_image(source, selection=Selection(series=wanted))


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    """A movie in OME-Zarr, a chunk for each frame."""
    return stored(tmp_path / "movie.ome.zarr", FRAMES, "TYX")


def stored(path: Path, array: np.ndarray, axes: str) -> Path:
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    keys: dict[str, Any] = {"name": "v2", "separator": "/"}
    group.create_array("0", shape=array.shape, chunks=(1, 24, 20), dtype=array.dtype, chunk_key_encoding=keys)[...] = (
        array
    )
    units = {axis: {"type": "space", "unit": "micrometer"} if axis in "ZYX" else {"type": "time"} for axis in axes}
    described: dict[str, Any] = {
        "version": "0.4",
        "axes": [{"name": axis.lower(), **units[axis]} for axis in axes],
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 0.5, 0.5]}]}],
    }
    group.attrs.update({"multiscales": [described]})
    return path


def without(path: Path, *frames: int) -> Image:
    for frame in frames:
        (path / "0" / str(frame) / "0" / "0").unlink()
    return read_image(path)


def test_frames_that_were_not_acquired_any_more_are_left_out_of_a_store(movie: Path) -> None:
    image = without(movie, 4, 5)
    assert (image.axes, image.shape) == ("TYX", (4, 24, 20))
    assert [warning.code for warning in image.warnings] == ["frames-missing"]
    assert "declare 6 time points, but it contains 4" in image.warnings[0].sentence
    np.testing.assert_array_equal(image.read(), FRAMES[:4])
    np.testing.assert_array_equal(image.read((slice(2, 4), slice(3, 9), slice(None))), FRAMES[2:4, 3:9])


def test_a_frame_that_lacks_before_others_is_still_an_error(movie: Path) -> None:
    image = without(movie, 3)
    assert (image.shape, image.warnings) == (FRAMES.shape, ())
    with pytest.raises(UnreadableImageError, match="T=3"):
        image.read()


def test_planes_that_lack_at_the_end_are_still_an_error(tmp_path: Path) -> None:
    image = without(stored(tmp_path / "stack.ome.zarr", FRAMES, "ZYX"), 4, 5)
    with pytest.raises(UnreadableImageError, match="Z=4"):
        image.read()


def test_a_store_of_nothing_is_an_error_not_a_movie_without_frames(movie: Path) -> None:
    with pytest.raises(UnreadableImageError, match="T=0"):
        without(movie, *range(6)).read()


@pytest.mark.parametrize(
    "change",
    [
        lambda level: level["coordinateTransformations"][0].update(scale=["a", 1]),
        lambda level: level["coordinateTransformations"][0].update(scale="0.5"),
        lambda level: level["coordinateTransformations"][0].update(scale=[1, None, 0.5]),
        lambda level: level.update(coordinateTransformations=["scale"]),
        lambda level: level.update(coordinateTransformations=3),
    ],
)
def test_a_scale_that_is_none_costs_the_pixel_size_of_a_store(change: Callable[[Any], Any], movie: Path) -> None:
    attributes = json.loads((movie / ".zattrs").read_text())
    change(attributes["multiscales"][0]["datasets"][0])
    (movie / ".zattrs").write_text(json.dumps(attributes))
    image = read_image(movie)
    assert image.pixel_size is None
    np.testing.assert_array_equal(image.read(), FRAMES)


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """A plate of three wells with a field each."""
    path, wells = tmp_path / "plate.ome.zarr", ("A/1", "A/2", "B/1")
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.attrs.update({"plate": {"wells": [{"path": well} for well in wells]}})
    for row in "AB":
        zarr.open_group(str(path / row), mode="w", zarr_format=2)
    for number, well in enumerate(wells):
        member = zarr.open_group(str(path / well), mode="w", zarr_format=2)
        member.attrs.update({"well": {"images": [{"path": "0"}]}})
        stored(path / well / "0", FRAMES[number : number + 2], "TYX")
    return path


@pytest.mark.parametrize(
    ("lacks", "named"),
    [
        ("A/1", "lists the image A/1, which is missing"),
        ("A/1/0", "lists the image A/1/0, which is missing"),
        ("A/1/0/0", "A/1/0: expected the array of its level '0', found none"),
    ],
    ids=["a well", "a field", "a level"],
)
def test_a_part_of_a_plate_that_was_not_copied_is_named_and_the_others_can_be_chosen(
    lacks: str, named: str, plate: Path
) -> None:
    shutil.rmtree(plate / lacks)
    for selection in (Selection(), Selection(series="0")):
        with pytest.raises(UnreadableImageError, match=named):
            read_image(plate, selection=selection)
    for wanted in ("2", "B/1/0"):
        np.testing.assert_array_equal(read_image(plate, selection=Selection(series=wanted)).read(), FRAMES[2:4])
    assert [one.name.removesuffix("/0") for one in list_series(plate)] == ["A/1", "A/2", "B/1"]


def test_what_is_left_of_a_plate_is_not_taken_for_its_only_image(plate: Path) -> None:
    for well in ("A/2", "B/1"):
        shutil.rmtree(plate / well)
    with pytest.raises(UnreadableImageError, match="lists the image A/2, which is missing"):
        read_image(plate)


def claimed(path: Path, array: np.ndarray, elements: str, **metadata: Any) -> Path:
    """Write an OME-TIFF that says by other elements where its planes lie."""
    path.write_bytes(tiff(array, ome=True, metadata=metadata))
    text = str(tifffile.tiffcomment(path))
    changed = re.sub(r"<TiffData.*?(</TiffData>|/>)", elements, text, count=1, flags=re.DOTALL)
    assert elements in changed
    tifffile.tiffcomment(path, changed.encode())
    return path


def data_at(*pages: int, first: str = "FirstZ") -> str:
    return "".join(f'<TiffData {first}="{n}" IFD="{page}" PlaneCount="1"/>' for n, page in enumerate(pages))


@pytest.mark.parametrize("axis", ["Z", "T"])
def test_planes_for_which_the_metadata_name_one_page_are_an_error(axis: str, tmp_path: Path) -> None:
    path = claimed(tmp_path / "a.ome.tif", FRAMES, data_at(*[0] * 6, first=f"First{axis}"), axes=f"{axis}YX")
    for source in (path, path.read_bytes()):
        with pytest.raises(UnreadableImageError, match=rf"plane {axis}=0 .*one of 6 .* page 0 .*{axis}=1"):
            read_image(source).read()


def test_planes_beside_those_of_one_page_can_be_chosen(tmp_path: Path) -> None:
    path = claimed(tmp_path / "a.ome.tif", FRAMES, data_at(0, 1, 1, 3, 4, 5), axes="ZYX")
    for plane in ("1", "2"):
        with pytest.raises(UnreadableImageError, match=f"Z={plane} .*page 1"):
            read_image(path, selection=Selection(plane=plane)).read()
    np.testing.assert_array_equal(read_image(path, selection=Selection(plane="3")).read(), FRAMES[3])


def test_two_pages_for_one_plane_are_an_error(tmp_path: Path) -> None:
    elements = "".join(f'<TiffData IFD="{page}"/>' for page in range(6))
    path = claimed(tmp_path / "a.ome.tif", FRAMES, elements, axes="TYX")
    with pytest.raises(UnreadableImageError, match="two pages"):
        read_image(path).read()


def test_a_page_of_another_image_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(FRAMES[:4], metadata={"axes": "ZYX", "Name": "left"})
        writer.write(FRAMES[4:], metadata={"axes": "ZYX", "Name": "right"})
    text = str(tifffile.tiffcomment(path))
    assert 'IFD="4"' in text
    tifffile.tiffcomment(path, text.replace('IFD="4"', 'IFD="0"').encode())
    np.testing.assert_array_equal(read_image(path, selection=Selection(series="left")).read(), FRAMES[:4])
    with pytest.raises(UnreadableImageError, match=r"page 0 .* another image"):
        read_image(path, selection=Selection(series="right")).read()


@pytest.mark.parametrize(
    "elements",
    [
        "<TiffData/>",
        '<TiffData IFD="0" PlaneCount="6"/>',
        '<TiffData PlaneCount="6"/>',
        data_at(0, 1, 2, 3, 4, 5) * 2,
        '<TiffData/><TiffData FirstZ="3" IFD="3"/>',
    ],
)
def test_what_elements_of_a_stack_may_leave_out_or_say_twice(elements: str, tmp_path: Path) -> None:
    path = claimed(tmp_path / "a.ome.tif", FRAMES, elements, axes="ZYX")
    for source in (path, path.read_bytes()):
        np.testing.assert_array_equal(read_image(source).read(), FRAMES)


@pytest.mark.parametrize(
    "elements",
    [
        "".join(f'<TiffData FirstC="{c}" FirstZ="{z}" IFD="{z}" PlaneCount="1"/>' for z in range(2) for c in range(3)),
        '<TiffData FirstZ="0" IFD="0" PlaneCount="3"/><TiffData FirstZ="1" IFD="1" PlaneCount="3"/>',
        '<TiffData IFD="0" PlaneCount="2"/>',
    ],
)
def test_samples_of_one_pixel_are_channels_of_one_page(elements: str, tmp_path: Path) -> None:
    colours = np.random.default_rng(3).integers(0, 256, (2, 24, 20, 3), np.uint8)
    path = claimed(tmp_path / "a.ome.tif", colours, elements, axes="ZYXS")
    image = read_image(path)
    np.testing.assert_array_equal(np.moveaxis(image.read(), image.axes.index("C"), -1), colours)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize(
    ("kind", "options", "others"),
    [
        ("PNG", {}, 5),
        ("PNG", {"default_image": True}, 5),
        ("MPO", {"quality": 100}, 5),
    ],
    ids=["animated PNG", "animated PNG with a picture beside it", "JPEG of several"],
)
def test_frames_of_a_picture_are_not_left_out_in_silence(
    kind: str, options: dict[str, Any], others: int, labels: bool, tmp_path: Path
) -> None:
    first, *more = [Picture.fromarray(frame) for frame in FRAMES]
    path = tmp_path / "a.picture"
    first.save(path, kind, save_all=True, append_images=more, **options)
    for source in (path, path.read_bytes()):
        if kind == "MPO" and labels:
            continue  # lossy, and refused
        image = read_image(source, labels=labels)
        np.testing.assert_allclose(image.read().astype(int), FRAMES[0], atol=0 if kind == "PNG" else 8)
        (warning,) = image.warnings
        assert warning.code == "frames-left-out"
        assert f"contains {others + 1} pictures" in warning.sentence


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "MPO"])
def test_a_picture_of_one_frame_has_no_warning(kind: str) -> None:
    buffer = io.BytesIO()
    Picture.fromarray(GREY).save(buffer, kind)
    assert read_image(buffer.getvalue()).warnings == ()


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("length", range(4, 12))
def test_a_tiff_cut_within_its_header_is_damaged(length: int, labels: bool, tmp_path: Path) -> None:
    (path := tmp_path / "a.tif").write_bytes(tiff(GREY)[:length])
    for source in (path, path.read_bytes()):
        with pytest.raises(UnreadableImageError):
            read_image(source, labels=labels)

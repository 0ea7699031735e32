"""Places named by URI: what is allowed, what is refused, and that files, S3 and web addresses behave alike."""

from __future__ import annotations

import pickle
import shutil
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from cytoray_analysis.errors import (
    ForbiddenError,
    ImageTooLargeError,
    MissingFileError,
    PlatformError,
    RequestError,
    UnreadableImageError,
)
from cytoray_analysis.images import Limits, image_from_array, read_image, write_image
from cytoray_analysis.tracking.ctc import read_movie
from cytoray_services.storage.allowed import Allowed
from cytoray_services.storage.locate import locate
from cytoray_services.storage.location import StorageLocation
from serving_samples import noise, tiff_bytes
from web_servers import Quiet, serving

PIXELS = noise(40, 50)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a folder that is allowed, with an image, an OME-Zarr and a folder of two files; a secret lies beside it."""
    folder = tmp_path / "allowed"
    (folder / "many").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "a.tif").write_bytes(tiff_bytes(PIXELS))
    for name in ("b.tif", "a b%.tif", ".hidden"):
        (folder / "many" / name).write_bytes(tiff_bytes(PIXELS))
    write_image(folder / "a.ome.zarr", image_from_array(PIXELS, "YX", pixel_size={"Y": 0.5, "X": 0.5}))
    return folder


@pytest.fixture
def web(root: Path) -> Iterator[str]:
    """Serve the folder over HTTP."""
    yield from serving(partial(Quiet, directory=str(root)))


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run an S3 store with one bucket."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            environment.setenv(name, value)
        import boto3

        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="images")
        yield f"http://{host}:{port}"
    server.stop()


def _copied(root: Path, target: StorageLocation) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            target.joined(path.relative_to(root).as_posix()).write_bytes(path.read_bytes())


@pytest.fixture(params=["file", "s3", "http"])
def top(request: pytest.FixtureRequest, root: Path) -> StorageLocation:
    """Give the same folder as a file URI, in S3 and on the web."""
    if request.param == "file":
        return locate(root.as_uri(), Allowed(roots=(root,)))
    if request.param == "http":
        host = request.getfixturevalue("web")
        return locate(f"http://{host}/", Allowed(hosts=(host,)))
    folder = locate(
        f"s3://images/{root.parent.name}", Allowed(buckets=("images",), s3_endpoint=request.getfixturevalue("s3"))
    )
    _copied(root, folder)
    return folder


@pytest.mark.slow
def test_an_image_is_read_alike_wherever_it_lies(top: StorageLocation) -> None:
    image = top.joined("a.tif")
    assert (image.name, image.exists(), image.is_folder(), image.is_zarr()) == ("a.tif", True, False, False)
    assert image.read_bytes() == tiff_bytes(PIXELS)
    assert np.array_equal(image.open_image(Limits()).read(), PIXELS)
    with image.local() as path:
        assert path.name == "a.tif"
        assert path.read_bytes() == tiff_bytes(PIXELS)


@pytest.mark.slow
def test_an_ome_zarr_is_read_chunk_by_chunk_wherever_it_lies(top: StorageLocation) -> None:
    image = top.joined("a.ome.zarr")
    assert image.is_zarr()
    opened = image.open_image(Limits())
    assert (opened.axes, opened.pixel_size) == ("YX", {"Y": 0.5, "X": 0.5})
    assert np.array_equal(opened.read((slice(3, 9), slice(4, 40))), PIXELS[3:9, 4:40])
    with pytest.raises(ImageTooLargeError):
        image.open_image(Limits(pixels=1999))


def test_what_is_not_there_is_said_to_be_missing(top: StorageLocation) -> None:
    missing = top.joined("none.tif")
    assert not missing.exists()
    for read in (missing.read_bytes, lambda: missing.open_image(Limits()), lambda: missing.local().__enter__()):
        with pytest.raises(MissingFileError, match=r"none\.tif"):
            read()


def test_no_more_is_read_than_one_file_may_have(top: StorageLocation) -> None:
    bounded = locate(top.uri, top.allowed.model_copy(update={"largest_file": 1000}))
    for read in (bounded.joined("a.tif").read_bytes, lambda: bounded.joined("a.tif").local().__enter__()):
        with pytest.raises(ImageTooLargeError, match="1000"):
            read()


def test_a_place_crosses_process_borders(top: StorageLocation) -> None:
    assert pickle.loads(pickle.dumps(top.joined("a.tif"))).read_bytes() == tiff_bytes(PIXELS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "..", "a/../b", "/a", "a//b", ".", "a\\b", "a\0"])
def test_names_below_a_place_lead_nowhere_else(top: StorageLocation, name: str) -> None:
    with pytest.raises(RequestError):
        top.joined(name)


@pytest.mark.parametrize("top", ["file", "s3"], indirect=True)
def test_folders_are_listed_written_to_and_removed(top: StorageLocation) -> None:
    folder = top.joined("many")
    assert folder.is_folder()
    assert [child.name for child in folder.children()] == ["a b%.tif", "b.tif"]
    assert all(child.read_bytes() == tiff_bytes(PIXELS) for child in folder.children())
    written = top.joined("new/deep/c.bin")
    written.write_bytes(b"one")
    written.write_bytes(b"two")
    assert written.read_bytes() == b"two"
    with folder.local() as path:
        assert {child.name for child in path.iterdir()} == {"a b%.tif", "b.tif", ".hidden"}
    written.delete()
    written.delete()
    folder.delete()
    assert not written.exists()
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("top", ["file", "s3"], indirect=True)
def test_an_ome_zarr_is_written_chunk_by_chunk(top: StorageLocation) -> None:
    import zarr

    new = top.joined("new.zarr")
    array = zarr.create_array(new.zarr_store(writing=True), shape=(20, 30), chunks=(10, 10), dtype="u1")
    array[:] = PIXELS[:20, :30]
    assert new.is_zarr()
    assert np.array_equal(zarr.open_array(new.zarr_store(writing=False), mode="r")[:], PIXELS[:20, :30])
    with pytest.raises(ValueError, match="read-only"):
        zarr.create_array(new.zarr_store(writing=False), shape=(20, 30), dtype="u1", overwrite=True)


@pytest.mark.slow
@pytest.mark.parametrize("top", ["file", "s3"], indirect=True)
def test_the_children_of_a_plate_are_its_fields(top: StorageLocation) -> None:
    import zarr

    plate = top.joined("plate.zarr")
    group = zarr.create_group(plate.zarr_store(writing=True))
    group.attrs["ome"] = {"plate": {"wells": [{"path": "A/1"}, {"path": "B/2"}]}}
    for well in ("A/1", "B/2"):
        group.create_group(well).attrs["ome"] = {"well": {"images": [{"path": "0"}, {"path": "1"}]}}
    assert [child.name for child in plate.children()] == ["A/1/0", "A/1/1", "B/2/0", "B/2/1"]
    assert plate.children()[0].uri.endswith("plate.zarr/A/1/0")


def test_by_default_nothing_is_allowed(root: Path) -> None:
    for uri in ((root / "a.tif").as_uri(), "s3://images/a.tif", "http://127.0.0.1/a.tif", "https://example.org/a.tif"):
        with pytest.raises(ForbiddenError) as caught:
            locate(uri, Allowed(), field="input")
        assert caught.value.field == "input"


@pytest.mark.parametrize(
    "uri",
    [
        "", "a.tif", "/data/a.tif", "ftp://host/a", "gs://bucket/a", "s3:/a", "http:///a", "http://[::1/a", "http://h:x/",
        "file://host/etc/passwd", "file:///a?b", "file:///a#b", "http://host/a\nb", "http://host\\@other/", "x" * 5000,
        "https://user:hush@host/a", "s3://user:hush@bucket/a",
    ],
)  # fmt: skip
def test_what_is_no_uri_is_refused_as_a_malformed_request(uri: str, tmp_path: Path) -> None:
    everything = Allowed(roots=(Path("/"),), hosts=("host", "other"), buckets=("bucket",))
    with pytest.raises(RequestError) as caught:
        locate(uri, everything)
    assert "hush" not in str(caught.value.describe())


@pytest.mark.parametrize(
    "path",
    ["secret.txt", "allowed/../secret.txt", "allowed/%2e%2e/secret.txt", "allowed/..%2Fsecret.txt", "allowed/link.txt",
     "allowed/folder/secret.txt", "allowed2/a.tif", "allowed/%00"],
)  # fmt: skip
def test_no_way_of_writing_a_path_leads_out_of_a_root(root: Path, path: str) -> None:
    (root / "link.txt").symlink_to("../secret.txt")
    (root / "folder").symlink_to("..")
    (root.parent / "allowed2").mkdir()
    with pytest.raises(ForbiddenError):
        locate(f"{root.parent.as_uri()}/{path}", Allowed(roots=(root,)))


def test_a_link_that_appears_later_is_noticed(root: Path) -> None:
    image = locate((root / "a.tif").as_uri(), Allowed(roots=(root,)))
    (root / "a.tif").unlink()
    (root / "a.tif").symlink_to(root.parent / "secret.txt")
    for use in (
        image.read_bytes,
        image.exists,
        image.delete,
        lambda: image.write_bytes(b""),
        lambda: image.open_image(Limits()),
    ):
        with pytest.raises(ForbiddenError):
            use()
    assert (root.parent / "secret.txt").read_text() == "secret"


def test_a_root_may_itself_be_a_link_and_is_never_removed(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    allowed = Allowed(roots=(root.parent / "link",))
    assert locate((root / "a.tif").as_uri(), allowed).exists()
    with pytest.raises(ForbiddenError):
        locate(root.as_uri(), allowed).delete()


def test_a_listed_bucket_itself_is_never_removed(s3: str) -> None:
    allowed = Allowed(buckets=("images", "plates/day1/"), s3_endpoint=s3)
    for uri in ("s3://images", "s3://images/", "s3://plates/day1"):
        with pytest.raises(ForbiddenError, match="root"):
            locate(uri, allowed).delete()


@pytest.mark.parametrize("top", ["file", "s3"], indirect=True)
def test_a_local_copy_of_a_folder_keeps_its_shape(top: StorageLocation) -> None:
    with top.local() as path:
        assert (path / "many" / "b.tif").read_bytes() == tiff_bytes(PIXELS)
        assert np.array_equal(read_image(path / "a.ome.zarr").read(), PIXELS)


def test_an_image_names_no_other_files(root: Path) -> None:
    tifffile.imwrite(root / "other.tif", PIXELS[:20] + 1, metadata=None)
    first, second = (f"urn:uuid:{digit * 8}-1111-1111-1111-111111111111" for digit in "12")
    xml = (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{first}"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="50" SizeY="20" SizeC="1" SizeZ="1" SizeT="2">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        f'<TiffData FirstT="0" IFD="0"><UUID FileName="a.ome.tif">{first}</UUID></TiffData>'
        f'<TiffData FirstT="1" IFD="0"><UUID FileName="other.tif">{second}</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(root / "a.ome.tif", PIXELS[:20], description=xml, metadata=None)
    assert (read_image(root / "a.ome.tif").read() == PIXELS[:20] + 1).all(axis=(-1, -2)).any()
    try:
        pixels = locate((root / "a.ome.tif").as_uri(), Allowed(roots=(root,))).open_image(Limits()).read()
    except UnreadableImageError:
        return
    assert not (pixels == PIXELS[:20] + 1).all(axis=(-1, -2)).any()


@pytest.mark.parametrize(
    ("uri", "fine"),
    [
        ("s3://images/a.tif", True),
        ("s3://plates/day 1/a#b?.tif", True),
        ("s3://plates/day 12/a.tif", False),
        ("s3://plates/day 1/../secret", False),
        ("s3://plates/day 1//a", False),
        ("s3://plates", False),
        ("s3://images2/a", False),
        ("s3://", False),
    ],
)
def test_buckets_and_prefixes_end_where_names_end(uri: str, fine: bool) -> None:
    allowed = Allowed(buckets=("images", "plates/day 1"))
    if fine:
        assert locate(uri, allowed).name == uri.rpartition("/")[2]
    else:
        with pytest.raises(ForbiddenError):
            locate(uri, allowed)


@pytest.mark.slow
def test_stores_that_do_not_answer_are_reported_within_seconds() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        web = Allowed(hosts=(f"127.0.0.1:{port}",))
        bucket = Allowed(buckets=("images",), s3_endpoint=f"http://127.0.0.1:{port}")
        begun = time.monotonic()
        for one in (locate(f"http://127.0.0.1:{port}/a", web), locate("s3://images/a", bucket)):
            for use in (one.read_bytes, one.exists, lambda one=one: one.open_image(Limits())):
                with pytest.raises(PlatformError):
                    use()
    assert time.monotonic() - begun < 15


@pytest.fixture
def linked(root: Path) -> Path:
    """Give a folder beside the root, whose files are not allowed."""
    outside = root.parent / "outside"
    (outside / "frames").mkdir(parents=True)
    tifffile.imwrite(outside / "frames" / "t001.tif", PIXELS[:20])
    write_image(outside / "a.ome.zarr", image_from_array(PIXELS, "YX"))
    return outside


def test_no_chunk_of_an_ome_zarr_lies_outside(root: Path, linked: Path) -> None:
    folder = root / "own.ome.zarr"
    write_image(folder, image_from_array(PIXELS, "YX"))
    allowed = Allowed(roots=(root,))
    assert np.array_equal(locate(folder.as_uri(), allowed).open_image(Limits()).read(), PIXELS)
    level = next(path for path in sorted(folder.iterdir()) if path.is_dir())
    shutil.rmtree(level)
    level.symlink_to(linked / "a.ome.zarr" / level.name)
    with pytest.raises(ForbiddenError):
        locate(folder.as_uri(), allowed).open_image(Limits()).read()
    level.unlink()
    level.mkdir()
    for path in (linked / "a.ome.zarr" / level.name).rglob("*"):
        target = level / path.relative_to(linked / "a.ome.zarr" / level.name)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    with pytest.raises(ForbiddenError):
        locate(folder.as_uri(), allowed).open_image(Limits()).read()


def test_an_ome_zarr_is_not_written_through_a_link(root: Path, linked: Path) -> None:
    folder = root / "answer.ome.zarr"
    folder.mkdir()
    (folder / "0").symlink_to(linked)
    store = locate(folder.as_uri(), Allowed(roots=(root,))).zarr_store(writing=True)
    with pytest.raises(ForbiddenError):
        zarr.create_array(store, name="0", shape=(4,), dtype="uint8")
    assert sorted(path.name for path in linked.iterdir()) == ["a.ome.zarr", "frames"]


@pytest.mark.parametrize("deep", [False, True])
def test_no_frame_of_a_movie_lies_outside(root: Path, linked: Path, deep: bool) -> None:
    movie = root / "movie"
    movie.mkdir()
    tifffile.imwrite(movie / "t000.tif", PIXELS[:20])
    allowed = Allowed(roots=(root,))
    with locate(movie.as_uri(), allowed).local() as path:
        assert read_movie(path, alone=True).shape[0] == 1
    if deep:
        (root / "between").mkdir()
        (root / "between" / "out").symlink_to(linked / "frames")
        (movie / "more").symlink_to(root / "between")
    else:
        (movie / "t001.tif").symlink_to(linked / "frames" / "t001.tif")
    with pytest.raises(ForbiddenError, match="leads out"), locate(movie.as_uri(), allowed).local():
        pass


def test_links_inside_are_followed(root: Path) -> None:
    movie = root / "movie"
    movie.mkdir()
    tifffile.imwrite(root / "first.tif", PIXELS[:20])
    (movie / "t000.tif").symlink_to(root / "first.tif")
    (movie / "again").symlink_to(movie)
    with locate(movie.as_uri(), Allowed(roots=(root,))).local() as path:
        assert np.array_equal(read_image(path / "t000.tif").read(), PIXELS[:20])

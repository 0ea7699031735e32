"""Files appear whole, and those who may read them are those whom the umask lets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.files import append_line, draft_folder, follow_umask, whole_file, write_whole
from cytoray_analysis.images import image_from_array, write_image
from cytoray_analysis.images.writer import write_labels
from cytoray_analysis.networks import build_network
from small_disks import fill, small_disk


@pytest.fixture(params=[0o022, 0o002, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield int(request.param)
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def modes(folder: Path) -> set[tuple[bool, int]]:
    return {(path.is_dir(), mode(path)) for path in (folder, *folder.rglob("*"))}


def test_files_have_the_permissions_of_the_umask_and_private_ones_are_for_the_owner(tmp_path: Path, umask: int) -> None:
    assert mode(write_whole(tmp_path / "a.txt", "text")) == 0o666 & ~umask
    assert mode(write_whole(tmp_path / "b.txt", "text", private=True)) == 0o600
    write_whole(tmp_path / "a.txt", "secret", private=True)
    assert mode(tmp_path / "a.txt") == 0o600
    assert mode(draft_folder(tmp_path / "c")) == 0o777 & ~umask


def test_a_tree_that_others_wrote_for_their_owner_follows_the_umask(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "tree"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_bytes(b"")
    for path in (folder / "inner" / "file", folder / "inner", folder):
        path.chmod(0o700)
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "elsewhere").chmod(0o600)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    follow_umask(folder)
    assert mode(folder) == mode(folder / "inner") == 0o777 & ~umask
    assert mode(folder / "inner" / "file") == 0o666 & ~umask
    assert mode(tmp_path / "elsewhere") == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "tree"]


def bundle(place: Path) -> None:
    network = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 4, "widths": [4, 8]})
    spec = BundleSpec(name="cells", task=TaskChoice(), input=ModelInput(), network=network)
    weights = build_network(network.name, network.arguments).state_dict()
    write_bundle(place, spec, weights, test_input=np.zeros((1, 16, 16), np.float32), card="# cells\n")


PIXELS = np.arange(256, dtype=np.uint16).reshape(16, 16)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("bundle", bundle),
        ("labels.tif", lambda place: write_labels(place, PIXELS)),
        ("labels.png", lambda place: write_labels(place, PIXELS)),
        ("labels.ome.zarr", lambda place: write_labels(place, PIXELS)),
        ("image.ome.tif", lambda place: write_image(place, image_from_array(PIXELS, "YX"))),
    ],
)
def test_what_is_written_for_others_follows_the_umask(
    tmp_path: Path, umask: int, name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)
    assert modes(tmp_path / name) <= {(False, 0o666 & ~umask), (True, 0o777 & ~umask)}


def test_nothing_is_left_and_nothing_is_replaced_where_writing_fails(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "old")

    def fail() -> None:
        with whole_file(tmp_path / "a.txt") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_half_a_line_of_a_killed_process_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    append_line(path, "one")
    with path.open("a") as file:
        file.write('{"half')
    append_line(path, "two", durable=True)
    append_line(path, "three")
    assert path.read_text() == "one\ntwo\nthree\n"


def test_a_line_that_finds_no_room_leaves_no_half_of_it(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64):
        path = tmp_path / "disk" / "calls.jsonl"
        append_line(path, "one")
        fill(tmp_path / "disk")
        with pytest.raises(OSError, match="No space left"):
            append_line(path, "x" * 10_000)
        assert path.read_text() == "one\n"

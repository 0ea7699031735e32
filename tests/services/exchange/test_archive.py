"""Archives are the same bytes for the same files, and one made to harm is refused before it has written anything."""

from __future__ import annotations

import os
import re
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytoray_analysis.errors import BundleError, RequestError
from cytoray_services.exchange.archive import appears_whole, unpack_archive, write_archive

NAMES = st.text("abcdefgh", min_size=1, max_size=8)


def archive_with(path: Path, name: str, content: bytes = b"x", mode: int = stat.S_IFREG | 0o644) -> Path:
    entry = zipfile.ZipInfo(name)
    entry.filename = name  # the constructor would mend it
    entry.external_attr = mode << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(NAMES, st.binary(max_size=200), min_size=1, max_size=6), moment=st.integers(10**9, 2**31))
def test_what_is_packed_comes_back_and_neither_time_nor_order_shows(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], moment: int
) -> None:
    home = tmp_path_factory.mktemp("archive")
    for folder, order in ((home / "one", sorted(files)), (home / "two", sorted(files, reverse=True))):
        folder.mkdir()
        for name in order:
            (folder / name).write_bytes(files[name])
            os.utime(folder / name, (moment, moment) if folder.name == "two" else None)
            (folder / name).chmod(0o600 if folder.name == "two" else 0o664)
        write_archive(folder, home / f"{folder.name}.zip")
    assert (home / "one.zip").read_bytes() == (home / "two.zip").read_bytes()
    (home / "back").mkdir()
    unpack_archive(home / "one.zip", home / "back")
    assert {path.name: path.read_bytes() for path in (home / "back").iterdir()} == files


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/outside", "C:outside", "a\\..\\outside"])
def test_a_name_that_leads_out_of_the_folder_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(BundleError, match=f"contains {re.escape(repr(name))}, a path outside its folder") as caught:
        unpack_archive(archive_with(tmp_path / "bad.zip", name), tmp_path / "in")
    assert caught.value.hint
    assert {path.name for path in tmp_path.iterdir()} == {"in", "bad.zip"}
    assert not any((tmp_path / "in").iterdir())


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    bad = archive_with(tmp_path / "bad.zip", "bundle.yaml", b"/etc/passwd", stat.S_IFLNK | 0o777)
    with pytest.raises(BundleError, match="link"):
        unpack_archive(bad, tmp_path / "in")
    assert not any((tmp_path / "in").iterdir())


@pytest.mark.slow
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    bomb = archive_with(tmp_path / "bomb.zip", "weights.safetensors", bytes(64 * 2**20))
    assert bomb.stat().st_size < 2**20
    with pytest.raises(BundleError, match=r"200 times the size of the archive, got 1 files?, 64 MiB and 1\d{3} times"):
        unpack_archive(bomb, tmp_path / "in")
    assert not any((tmp_path / "in").iterdir())


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for index in range(1001):
            archive.writestr(f"{index}", b"")
    (tmp_path / "in").mkdir()
    with pytest.raises(BundleError, match="1001 files"):
        unpack_archive(tmp_path / "many.zip", tmp_path / "in")


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 cut off"])
def test_what_is_no_archive_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.zip").write_bytes(content)
    (tmp_path / "in").mkdir()
    with pytest.raises(BundleError, match=r"expected a readable ZIP archive, got .*bad\.zip: "):
        unpack_archive(tmp_path / "bad.zip", tmp_path / "in")


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), appears_whole(target) as draft:
        draft.with_name("missing").replace(draft)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_with_files_in_it_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "thesis.txt").write_text("mine")
    with pytest.raises(RequestError, match="empty folder"), appears_whole(tmp_path / "kept"):
        pass
    assert (tmp_path / "kept" / "thesis.txt").read_text() == "mine"

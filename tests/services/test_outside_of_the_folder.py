"""Data sets that name, or link to, what lies outside of their folder: let in for who may read it, refused for a job."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tifffile import imwrite

from cytoray_analysis.errors import ForbiddenError
from cytoray_services.datasets import DataSource, open_dataset


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Three teams on one volume; each has a data set that is whole."""
    for team in ("a", "b", "c"):
        for part, dtype in (("images", np.uint8), ("masks", np.uint16)):
            (tmp_path / team / part).mkdir(parents=True)
            imwrite(tmp_path / team / part / "x.tif", np.ones((8, 8), dtype))
            imwrite(tmp_path / team / part / "y.tif", np.ones((8, 8), dtype))
    return tmp_path


def manifest(shared: Path, *rows: str) -> None:
    (shared / "a/manifest.csv").write_text("image,mask,split\n" + "".join(f"{row}\n" for row in rows))


def link(place: Path, to: Path) -> None:
    if place.exists():
        place.rename(place.with_name(f"{place.name}.before"))
    place.symlink_to(to)


ATTACKS: dict[str, Callable[[Path], None]] = {
    "a path upwards": lambda shared: manifest(shared, "../b/images/x.tif,masks/x.tif,train"),
    "a mask upwards": lambda shared: manifest(shared, "images/x.tif,../b/masks/x.tif,train"),
    "an absolute path": lambda shared: manifest(shared, f"{shared}/b/images/x.tif,masks/x.tif,train"),
    "a path of Windows": lambda shared: manifest(shared, "..\\b\\images\\x.tif,masks/x.tif,train"),
    "the root of a process": lambda shared: manifest(
        shared, f"/proc/self/root{shared}/b/images/x.tif,masks/x.tif,train"
    ),
    "a link to an image": lambda shared: link(shared / "a/images/x.tif", shared / "b/images/x.tif"),
    "a link to a folder": lambda shared: link(shared / "a/images", shared / "b/images"),
    "a link to a manifest": lambda shared: link(shared / "a/manifest.csv", Path("/etc/passwd")),
    "a file beside an image that names it": lambda shared: link(shared / "a/images/z.xml", shared / "b/images/x.tif"),
    "a link to nothing yet": lambda shared: link(shared / "a/images/z.tif", shared / "b/later.tif"),
    "the folder itself": lambda shared: link(shared / "a", shared / "b"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_lies_outside_is_refused_where_it_must_not_be_read(shared: Path, attack: str) -> None:
    ATTACKS[attack](shared)
    within = [shared / ("a.before" if attack == "the folder itself" else "a")]
    with pytest.raises(ForbiddenError, match="outside") as caught:
        open_dataset(shared / "a", within=within)
    assert caught.value.field == "data.within"


def test_a_link_within_does_not_hide_those_behind_it(shared: Path) -> None:
    link(shared / "a/images", shared / "c/images")
    (shared / "c/images/z.ome.zarr").mkdir()
    imwrite(shared / "a/masks/z.tif", np.ones((8, 8), np.uint16))
    within = [shared / "a", shared / "c"]
    assert len(open_dataset(shared / "a", within=within).items) == 3
    link(shared / "c/images/z.ome.zarr/0", shared / "b/images")
    with pytest.raises(ForbiddenError, match=r"z\.ome\.zarr/0, which is outside"):
        open_dataset(shared / "a", within=within)


def test_nothing_is_looked_at_behind_a_link_that_leads_outside(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link(shared / "a/images", shared / "b/images")
    looked_at: list[str] = []
    walk = os.walk

    def noted(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        looked_at.append(str(top))
        return walk(str(top))

    monkeypatch.setattr(os, "walk", noted)
    with pytest.raises(ForbiddenError, match="outside"):
        open_dataset(shared / "a", within=[shared / "a"])
    assert looked_at == [str(shared / "a")]


def test_links_that_lead_in_circles_end(shared: Path) -> None:
    link(shared / "a/more", shared / "a")
    link(shared / "a/loop", shared / "a/loop")
    assert len(open_dataset(shared / "a", within=[shared / "a"]).items) == 2


@pytest.mark.parametrize("attack", ["a path upwards", "a link to a folder"])
def test_on_the_command_line_linked_data_sets_are_read(shared: Path, attack: str) -> None:
    ATTACKS[attack](shared)
    assert all(item.image.exists() for item in open_dataset(shared / "a").items)


def test_links_within_the_folder_and_a_folder_behind_a_link_are_fine(shared: Path) -> None:
    link(shared / "a/images/x.tif", shared / "a/images/x.tif.before")
    (shared / "a/images/x.tif").unlink()
    (shared / "a/images/x.tif.before").rename(shared / "a/images/kept.tif")
    link(shared / "a/images/x.tif", Path("kept.tif"))
    imwrite(shared / "a/masks/kept.tif", np.ones((8, 8), np.uint16))
    (shared / "linked").symlink_to(shared / "a")
    assert len(open_dataset(shared / "linked", within=[shared / "linked"]).items) == 3


def test_a_data_set_may_name_files_of_the_other_folders_that_may_be_read(shared: Path) -> None:
    manifest(shared, "../b/images/x.tif,masks/x.tif,train")
    assert open_dataset(shared / "a", within=[shared / "a", shared / "b"]).items


def test_a_source_opens_all_its_folders_so(shared: Path) -> None:
    manifest(shared, "../b/images/x.tif,masks/x.tif,train")
    for roots, validation in (((shared / "a",), ()), ((shared / "c",), (shared / "a",))):
        source = DataSource(roots, "labels", validation, within=(shared / "a", shared / "c"))
        assert DataSource.from_record(json.loads(json.dumps(source.to_record()))) == source
        with pytest.raises(ForbiddenError, match="outside"):
            source.open()

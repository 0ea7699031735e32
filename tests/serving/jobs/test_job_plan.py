"""What a job works on, in which order, and under which names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_analysis.images import image_from_array, write_image
from cytoray_analysis.inference.objects import segment
from cytoray_analysis.predictor import Predictor
from cytoray_services.storage.allowed import Allowed
from cytoray_serving.jobs.plan import plan, stem
from cytoray_serving.jobs.request import JobRequest
from cytoray_serving.jobs.request_locations import check_locations
from cytoray_serving.replica.step_checks import Step, check_steps
from cytoray_serving.replica.steps import run_steps
from job_samples import picture, write_images
from serving_samples import moving_squares, tiff_bytes, write_stain_bundle

NUCLEI = Step("nuclei", "labels", "pixel")
STAIN = Step("stain", "image", "pixel")
CELLS = Step("cells", "class", "cell")
LINKER = Step("linker", "lineage", "link")


def asked(folder: Path, name: str, **fields: str) -> JobRequest:
    return JobRequest(input=(folder / name).as_uri(), output=(folder / "out").as_uri(), **fields)


def test_images_of_a_folder_come_in_order_with_names_of_their_own(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 2, side=8)
    (folder / "field0000.png").write_bytes(b"")
    (folder / "field0000-2.tif").write_bytes(b"")
    (folder / ".hidden.tif").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"")
    (folder / "below").mkdir()
    write_image(folder / "slide.ome.zarr", image_from_array(picture((8, 8)), "YX"))
    items = plan(asked(tmp_path, "in"), Allowed(roots=(tmp_path,)), movies=False).items
    assert [item.index for item in items] == list(range(5))
    assert len({item.name for item in items}) == 5
    assert items[-1].name == "slide"
    assert {item.name for item in items} >= {"field0000", "field0000-2", "field0001"}
    chosen = plan(asked(tmp_path, "in", pattern="*.txt"), Allowed(roots=(tmp_path,)), movies=False).items
    assert [item.name for item in chosen] == ["notes.txt"]
    with pytest.raises(MissingFileError, match=r"an image at .* with a name that matches '\*\.czi', got none"):
        plan(asked(tmp_path, "in", pattern="*.czi"), Allowed(roots=(tmp_path,)), movies=False)


def test_what_is_left_out_of_a_folder_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 1, side=8)
    for name in ("notes.txt", "slide.svs", "frame.LSM"):
        (folder / name).write_bytes(b"")
    (folder / "below").mkdir()
    allowed = Allowed(roots=(tmp_path,))
    planned = plan(asked(tmp_path, "in"), allowed, movies=False)
    assert [item.name for item in planned.items] == ["field0000", "frame", "slide"]
    assert {one.item for one in planned.left_out} == {"notes.txt", "below"}
    planned = plan(asked(tmp_path, "in", pattern="*.svs"), allowed, movies=False)
    assert {one.item for one in planned.left_out} == {"notes.txt", "below", "frame.LSM", "field0000.tif"}
    assert all("*.svs" in one.reason for one in planned.left_out)


def test_names_of_answers_differ_whatever_their_capitals(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("A.tif", "a.png", "plate.A0.tif", "plate.A1.tif"):
        (tmp_path / "in" / name).write_bytes(b"")
    items = plan(asked(tmp_path, "in"), Allowed(roots=(tmp_path,)), movies=False).items
    assert [item.name for item in items] == ["A", "a-2", "plate.A0", "plate.A1"]


@pytest.mark.parametrize("masks", [("a.tif", "a.png"), ("a_mask.tif",)])
def test_masks_that_are_not_distinguished_are_refused(tmp_path: Path, masks: tuple[str, ...]) -> None:
    for folder, names in (("in", ("a.tiff", "a.jpg") if len(masks) == 1 else ("a.tiff",)), ("masks", masks)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(b"")
    request = asked(tmp_path, "in", masks=(tmp_path / "masks").as_uri())
    with pytest.raises(RequestError, match="ambiguous"):
        plan(request, Allowed(roots=(tmp_path,)), movies=False)


def test_a_folder_of_frames_is_one_movie_for_a_model_of_movies(tmp_path: Path) -> None:
    folder = tmp_path / "movie"
    folder.mkdir()
    for number in range(3):
        (folder / f"t{number:03d}.tif").write_bytes(tiff_bytes(picture((8, 8))))
    allowed = Allowed(roots=(tmp_path,))
    assert [item.name for item in plan(asked(tmp_path, "movie"), allowed, movies=True).items] == ["movie"]
    assert len(plan(asked(tmp_path, "movie"), allowed, movies=False).items) == 3


@pytest.mark.parametrize("form", ["T{:03d}.TIF", "img_{}.tif", "t{:05d}.tif"])
def test_frames_of_any_name_are_one_movie(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "movie"
    folder.mkdir()
    for number in range(3):
        (folder / form.format(number)).write_bytes(tiff_bytes(picture((8, 8))))
    items = plan(asked(tmp_path, "movie"), Allowed(roots=(tmp_path,)), movies=True).items
    assert [item.name for item in items] == ["movie"]


def test_stacks_are_the_frames_of_a_movie_of_stacks(tmp_path: Path) -> None:
    stack = np.stack([picture((8, 8))] * 5)
    for name, shape, count in (("frames", stack, 1), ("movies", np.stack([stack] * 2), 3)):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(3):
            (folder / f"img_{number}.tif").write_bytes(tiff_bytes(shape))
        allowed = Allowed(roots=(tmp_path,))
        assert len(plan(asked(tmp_path, name), allowed, movies=True, spatial_axes="ZYX").items) == count
        assert len(plan(asked(tmp_path, name), allowed, movies=True).items) == 3


def test_whole_movies_of_a_folder_are_items(tmp_path: Path) -> None:
    folder = tmp_path / "movies"
    folder.mkdir()
    for number in range(3):
        (folder / f"movie_{number}.tif").write_bytes(tiff_bytes(np.stack([picture((8, 8))] * 5)))
    assert len(plan(asked(tmp_path, "movies"), Allowed(roots=(tmp_path,)), movies=True).items) == 3


def test_masks_are_found_by_the_names_of_the_images(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2, side=8)
    write_images(tmp_path / "masks", 1, side=8)
    allowed = Allowed(roots=(tmp_path,))
    first, second = plan(asked(tmp_path, "in", masks=(tmp_path / "masks").as_uri()), allowed, movies=False).items
    assert first.masks == (tmp_path / "masks" / "field0000.tif").as_uri()
    assert second.masks is not None
    assert second.masks.endswith("masks/field0001")  # which is not there, and is told when the image is answered
    with pytest.raises(RequestError, match="folder of masks"):
        plan(asked(tmp_path, "in", masks=f"{first.masks}"), allowed, movies=False)


def test_an_output_that_holds_something_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 1, side=8)
    allowed = Allowed(roots=(tmp_path,))
    check_locations(asked(tmp_path, "in"), allowed)
    (tmp_path / "out").mkdir()
    check_locations(asked(tmp_path, "in"), allowed)
    (tmp_path / "out" / "one").write_bytes(b"")
    with pytest.raises(RequestError, match=r"an empty or new folder at .*/out, got one with contents"):
        check_locations(asked(tmp_path, "in"), allowed)


@given(st.text(alphabet="ab.-/", min_size=1, max_size=12).filter(lambda name: name.strip("./") != ""))
def test_a_stem_is_one_name(name: str) -> None:
    found = stem(name.strip("/"))
    assert found
    assert "/" not in found


@pytest.mark.parametrize(
    ("steps", "objects"),
    [
        ([NUCLEI], None),
        ([STAIN, NUCLEI, CELLS], None),
        ([NUCLEI, LINKER], None),
        ([CELLS], "boxes"),
        ([CELLS], None),
        ([LINKER], "masks"),
    ],
)
def test_models_that_suit_each_other_are_taken(steps: list[Step], objects: str | None) -> None:
    check_steps(steps, objects=objects)


@pytest.mark.parametrize(
    ("steps", "objects"),
    [
        ([LINKER], None),
        ([LINKER], "boxes"),
        ([NUCLEI], "masks"),
        ([NUCLEI, STAIN], None),
        ([CELLS, NUCLEI], None),
        ([STAIN, LINKER], None),
    ],
)
def test_models_that_do_not_suit_each_other_are_refused(steps: list[Step], objects: str | None) -> None:
    with pytest.raises(RequestError):
        check_steps(steps, objects=objects)


def test_labels_are_the_objects_and_an_image_is_the_image_of_the_next_model(
    segmenter: Predictor, stainer: Predictor, classifier: Predictor, linker: Predictor, tmp_path: Path
) -> None:
    image = image_from_array(picture((96, 96)), "YX")
    labels = segment(image, segmenter).labels
    classed = run_steps([segmenter, classifier], image)
    assert classed.kind == "class"
    assert classed.objects == int(labels.max())
    movie, _ = moving_squares()
    tracked = run_steps([segmenter, linker], image_from_array(movie, "TYX"))
    assert tracked.kind == "lineage"
    one = Predictor(Bundle.load(write_stain_bundle(tmp_path / "stain")))
    stain = image_from_array(one.predict(image).answer[0], "YX")  # its deviation, the second, is not passed on
    found = run_steps([one, segmenter], image).answer
    assert np.array_equal(found, segmenter.predict(stain).answer)
    with pytest.raises(RequestError, match="labels or images before another model"):
        run_steps([classifier, segmenter], image)
    assert np.array_equal(run_steps([segmenter], image).answer, labels)

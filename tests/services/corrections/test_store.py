"""Data sets on disk: readable by training at any time, while several processes write and are killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cytoray_analysis.errors import ConflictError, DatasetNotFoundError, ImageError, PlatformError, RequestError
from cytoray_services.corrections import label_files
from cytoray_services.corrections.dataset_folder import DatasetFolder
from cytoray_services.corrections.edits import EDIT, Edit
from cytoray_services.corrections.item import ItemFolder, StaleRevisionError
from cytoray_services.corrections.label_tiles import object_table
from cytoray_services.corrections.records import GivenObject
from cytoray_services.corrections.store import DatasetStore
from cytoray_services.datasets import check_dataset, hash_dataset, open_dataset, read_labelled
from cytoray_services.tokens.access import Caller
from small_disks import fill, small_disk

ADA = Caller("ada", ("predict", "submit"))
BEN = Caller("ben", ("predict", "submit"))
WHOLE = {"op": "finish", "region": {}}


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


@pytest.fixture
def cells(store: DatasetStore) -> DatasetFolder:
    return store.create("cells", ADA)


def labels_of(seed: int, shape: tuple[int, ...] = (64, 80)) -> np.ndarray:
    """Return six squares, one of them over the middle."""
    labels = np.zeros(shape, np.uint16)
    for number, column in enumerate(range(2, 62, 12), start=1):
        labels[..., 4 + seed % 5 : 14, column : column + 9] = number
    labels[..., 30:40, 36:44] = 6
    return labels


def add(
    dataset: DatasetFolder, folder: Path, seed: int = 0, *, shape: tuple[int, ...] = (64, 80), **options: Any
) -> ItemFolder:
    folder.mkdir(exist_ok=True)
    image, masks = folder / f"image-{seed}.tif", folder / f"masks-{seed}.tif"
    labels = labels_of(seed, shape)
    axes = {"axes": "TZYX"[-len(shape) :]}
    noise = np.random.default_rng(seed).integers(0, 50, shape)
    tifffile.imwrite(image, (noise + 100 * (labels > 0)).astype(np.uint8), metadata=axes)
    tifffile.imwrite(masks, labels, metadata=axes)
    return dataset.add_item(image.name, image, masks, caller=options.pop("caller", ADA), **options)


def edits(*given: dict[str, Any]) -> list[Edit]:
    return [EDIT.validate_python(one) for one in given]


def do(item: ItemFolder, *given: dict[str, Any], who: str = "ada", base: int | None = None) -> int:
    revision, _ = item.edit(edits(*given), base=item.state().revision if base is None else base, who=who)
    return revision


def test_a_data_set_is_what_training_reads(cells: DatasetFolder, tmp_path: Path) -> None:
    items = [add(cells, tmp_path / "given", seed) for seed in range(6)]
    for item in items:
        do(
            item,
            {"op": "finish", "region": {"outline": [[0, 0], [40, 0], [40, 64], [0, 64]]}},
            {"op": "delete", "labels": [1]},
        )
    dataset = open_dataset(cells.path, truth="labels", drawing_test=False)
    status = cells.status()
    assert status.version == hash_dataset(dataset)
    assert (status.items, status.finished, status.splits) == (6, 6, {"train": 5, "val": 1})
    assert [one.severity for one in check_dataset(dataset) if one.severity == "error"] == []
    for number, one in enumerate(dataset.images):
        truth, expected = read_labelled(dataset, one, {}).truth, labels_of(number).astype(int)
        expected[expected == 1] = 0
        expected[:, 40:] = -1
        expected[4 + number % 5 : 14, 38:47] = -1  # only two of nine columns are inside
        expected[30:40, 36:44] = 6  # half of it is
        np.testing.assert_array_equal(truth, expected)


def test_a_group_has_one_split_that_stays(cells: DatasetFolder, tmp_path: Path) -> None:
    groups = ["movie 1", "movie 2", None, "movie 1", "movie 2", None, None, None, None]
    items = [add(cells, tmp_path / "given", seed, group=group) for seed, group in enumerate(groups)]
    assert [item.record().split for item in items] == [
        "train", "val", "train", "train", "val", "train", "train", "train", "val",
    ]  # fmt: skip
    assert {item.group for item in open_dataset(cells.path).items if item.split == "val"} == {
        "movie 2",
        items[8].id,
    }


def test_the_same_image_cannot_be_added_twice(cells: DatasetFolder, tmp_path: Path) -> None:
    item = add(cells, tmp_path / "given")
    with pytest.raises(ConflictError, match=item.id):
        add(cells, tmp_path / "given", group="another")


@pytest.mark.parametrize("shape", [(64, 80), (3, 64, 80), (2, 3, 64, 80)])
def test_undo_to_the_start_gives_the_same_bytes(cells: DatasetFolder, tmp_path: Path, shape: tuple[int, ...]) -> None:
    item = add(cells, tmp_path / "given", shape=shape)
    before = (item.masks.read_bytes(), item.known.read_bytes(), cells.status().version)
    do(item, {"op": "delete", "labels": [1]}, {"op": "merge", "labels": [2, 3]}, WHOLE)
    do(item, {"op": "split", "label": 6, "line": [[40, 20], [40, 50]]})
    assert item.masks.read_bytes() != before[0]
    do(item, *[{"op": "undo"}] * 4)
    assert (item.masks.read_bytes(), item.known.read_bytes(), cells.status().version) == before
    assert item.state().revision == 8
    assert [one.in_force for one in item.edits()] == [False] * 4 + [None] * 4


def test_the_second_of_two_people_is_told_and_sees_both(cells: DatasetFolder, tmp_path: Path) -> None:
    item = add(cells, tmp_path / "given")
    do(item, {"op": "delete", "labels": [1]}, who="ada", base=0)
    with pytest.raises(StaleRevisionError, match="revision 1, got edits on 0: ada made 1 since") as refused:
        do(item, {"op": "delete", "labels": [2]}, who="ben", base=0)
    assert refused.value.revision == 1
    (theirs,) = refused.value.theirs
    assert (theirs.who, theirs.objects, theirs.base) == ("ada", (1,), 0)
    assert do(item, {"op": "delete", "labels": [2]}, who="ben", base=1) == 2
    assert [(one.number, one.who) for one in item.edits()] == [(1, "ada"), (2, "ben")]
    with pytest.raises(RequestError, match="revision from 0 to 2, got 9"):
        do(item, {"op": "undo"}, base=9)


def test_many_writers_at_once_lose_nothing(cells: DatasetFolder, tmp_path: Path) -> None:
    item = add(cells, tmp_path / "given")

    def work(who: str) -> None:
        own = ItemFolder(cells.path, item.id, item.lock)
        made = 0
        while made < 5:
            try:
                x = made * 12 + {"ada": 2, "ben": 6, "eve": 9}[who]
                do(own, {"op": "paint", "stroke": [[x, 55]], "radius": 1}, who=who)
            except StaleRevisionError:
                continue
            made += 1

    people = [threading.Thread(target=work, args=(who,)) for who in ("ada", "ben", "eve")]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert item.state().revision == 15
    assert sorted(one.who for one in item.edits()) == ["ada"] * 5 + ["ben"] * 5 + ["eve"] * 5
    assert len(np.unique(item.labels())) == 1 + 6 + 15


def test_edits_of_one_request_are_made_together_or_not_at_all(cells: DatasetFolder, tmp_path: Path) -> None:
    item = add(cells, tmp_path / "given")
    before = item.masks.read_bytes()
    with pytest.raises(RequestError, match="which no object has") as refused:
        do(item, {"op": "delete", "labels": [1]}, {"op": "delete", "labels": [1]})
    assert refused.value.field == "edits.1.labels"
    assert item.state().revision == 0
    assert item.masks.read_bytes() == before


def test_an_incomplete_last_line_is_ignored_and_removed(cells: DatasetFolder, tmp_path: Path) -> None:
    item = add(cells, tmp_path / "given")
    do(item, {"op": "delete", "labels": [1]})
    log = item.path / "edits.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + whole[: len(whole) // 2])
    assert item.state().revision == 1
    assert log.read_bytes() == whole
    log.write_bytes(whole + whole[:40])
    assert do(item, {"op": "delete", "labels": [2]}) == 2
    assert len(item.edits()) == 2


@pytest.mark.parametrize("lost", [("masks",), ("state",), ("masks", "known", "state"), ("manifest",)])
def test_what_a_killed_process_did_not_write_is_written_by_the_next(
    cells: DatasetFolder, tmp_path: Path, lost: Sequence[str]
) -> None:
    item = add(cells, tmp_path / "given")
    do(item, {"op": "delete", "labels": [1]})
    paths = {
        "masks": item.masks,
        "known": item.known,
        "state": item.path / "state.json",
        "manifest": cells.path / "manifest.csv",
    }
    before = {name: path.read_bytes() for name, path in paths.items()}
    do(item, {"op": "add", "outline": [[50, 50], [60, 50], [60, 60]]}, WHOLE)
    after = {name: path.read_bytes() for name, path in paths.items()}
    version = cells.status().version
    for name in lost:  # written after the log, in this order
        if name == "manifest":
            paths[name].unlink()
        else:
            paths[name].write_bytes(before[name])
    if lost == ("masks",):
        paths["state"].write_bytes(before["state"])
    assert cells.status().version == version
    assert {name: path.read_bytes() for name, path in paths.items()} == after


WRITER = """
import sys
from pathlib import Path
from cytoray_services.corrections.edits import EDIT
from cytoray_services.corrections.item import ItemFolder
item = ItemFolder(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
for number in range(10_000):
    revision = item.state().revision
    painted = {"op": "paint", "stroke": [[number % 80, 50]], "radius": 2, "over": True}
    edit = {"op": "undo"} if number % 3 == 2 else painted
    revision, _ = item.edit([EDIT.validate_python(edit)], base=revision, who="ada")
    print(revision, flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing_confirmed_and_leaves_nothing_half_written(
    cells: DatasetFolder, tmp_path: Path
) -> None:
    item = add(cells, tmp_path / "given")
    confirmed, rng = 0, np.random.default_rng(0)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(cells.path), item.id, str(item.lock)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        confirmed = int(process.stdout.readline())
        time.sleep(float(rng.uniform(0, 0.15)))
        process.kill()
        confirmed = int(([str(confirmed), *process.stdout.read().split("\n")[:-1]])[-1])
        process.wait()
        # Whatever is read in between is whole: each file is the old one or the new one.
        assert tifffile.imread(item.masks).shape == (64, 80)
        state = item.state()
        assert state.revision >= confirmed
        drawn = item.corrected()
        assert drawn.revision == state.revision
        assert set(np.unique(item.labels()).tolist()) - {0} == set(drawn.objects)
        assert json.loads((item.path / "state.json").read_text())["revision"] == state.revision
        assert cells.status().version == hash_dataset(open_dataset(cells.path, drawing_test=False))
    number = item.state().revision
    while any(one.in_force for one in item.edits()):
        do(item, {"op": "undo"})
    assert item.state().revision > number
    np.testing.assert_array_equal(item.labels()[0, 0], labels_of(0))


@pytest.mark.slow
def test_a_full_disk_is_said_in_words_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2048):
        store = DatasetStore(tmp_path / "disk" / "datasets")
        cells = store.create("cells", ADA)
        item = add(cells, tmp_path / "given")
        do(item, {"op": "delete", "labels": [1]})
        filling = fill(tmp_path / "disk")
        with pytest.raises(PlatformError, match="No space left"):
            do(item, {"op": "delete", "labels": [2]})
        with pytest.raises(PlatformError, match="No space left"):
            add(cells, tmp_path / "given", 1)
        filling.unlink()
        assert len(cells.items()) == 1
        assert item.state().revision in (1, 2)
        assert cells.status().version == hash_dataset(open_dataset(cells.path, drawing_test=False))


def test_what_the_model_made_and_what_a_person_did_stays_visible(cells: DatasetFolder, tmp_path: Path) -> None:
    objects = [GivenObject.model_validate({"label": 2, "confidence": 0.25, "class": "round"})]
    item = add(cells, tmp_path / "given", objects=objects, model={"name": "nuclei", "version": "0"})
    given = (item.path / "answer").read_bytes()
    do(item, {"op": "paint", "label": 1, "stroke": [[3, 20]], "radius": 8}, who="ben")
    do(item, {"op": "add", "outline": [[50, 50], [60, 50], [60, 60], [50, 60]]}, who="ben")
    table = object_table(item.corrected())
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert (rows[1]["made"], rows[1]["edited"], rows[1]["by"]) == ("model", True, None)
    assert (rows[2]["made"], rows[2]["edited"], rows[2]["confidence"], rows[2]["class"]) == (
        "model",
        False,
        0.25,
        "round",
    )
    assert (rows[7]["made"], rows[7]["by"], rows[7]["area"], rows[7]["x"], rows[7]["y"]) == (
        "person",
        "ben",
        100,
        54.5,
        54.5,
    )
    assert (item.path / "answer").read_bytes() == given
    assert item.status().model == {"name": "nuclei", "version": "0"}


def test_the_least_certain_unfinished_item_is_next(cells: DatasetFolder, tmp_path: Path) -> None:
    assert cells.next_item() is None
    items = []
    for seed, confidences in enumerate([(), (0.9, 0.9), (0.2, 0.9), (0.4, 0.5)]):
        objects = [GivenObject(label=label, confidence=one) for label, one in enumerate(confidences, start=1)]
        items.append(add(cells, tmp_path / "given", seed, objects=objects, model={"name": "nuclei"}))
    assert items[2].status().least_certain == 0.2
    assert items[2].status().certainty == pytest.approx(0.55)
    order = []
    while (chosen := cells.next_item()) is not None:
        order.append(chosen)
        do(cells.item(chosen), WHOLE)
    assert order == [items[at].id for at in (3, 2, 1, 0)]
    do(items[1], {"op": "reopen", "region": 1}, {"op": "delete", "labels": [1]})
    assert items[1].status().certainty == 0.9
    assert cells.next_item() == items[1].id


def test_data_sets_of_others_are_not_found(store: DatasetStore, cells: DatasetFolder) -> None:
    lab = [Caller(name, ("submit", "predict"), team="lab") for name in ("cyd", "dan")]
    store.create("shared", lab[0])
    assert [one.path.name for one in store.seen_by(lab[1])] == ["shared"]
    assert [one.path.name for one in store.seen_by(ADA)] == ["cells"]
    assert len(store.seen_by(Caller("chief", ("administer",)))) == 2
    for caller, name in ((BEN, "cells"), (ADA, "shared"), (ADA, "none"), (ADA, "../cells"), (ADA, ".locks")):
        with pytest.raises(DatasetNotFoundError):
            store.find(name, caller)
    for item in ("item-0123456789abcdef", "..", "item-0", ""):
        with pytest.raises(DatasetNotFoundError):
            cells.item(item)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "x" * 65, "é", "a b", "<b>"])
def test_a_name_that_is_no_name_of_a_folder_is_refused(store: DatasetStore, name: str) -> None:
    with pytest.raises(RequestError, match="expected a name"):
        store.create(name, ADA)


def test_a_name_is_taken_once(store: DatasetStore, cells: DatasetFolder) -> None:
    with pytest.raises(ConflictError, match="taken"):
        store.create("cells", BEN)


def test_a_data_set_with_items_is_removed_only_by_its_name(
    store: DatasetStore, cells: DatasetFolder, tmp_path: Path
) -> None:
    item = add(cells, tmp_path / "given")
    with pytest.raises(RequestError, match="confirm=cells"):
        cells.delete()
    cells.delete("cells")
    for gone in (cells.record, item.state, item.record, lambda: do(item, WHOLE, base=0), lambda: add(cells, tmp_path)):
        with pytest.raises(DatasetNotFoundError):
            gone()
    assert not cells.path.exists()
    store.create("cells", BEN).delete()


WRONG: dict[str, tuple[Callable[[Path], dict[str, Any]], type[Exception], str]] = {
    "masks of another size": (lambda f: {"labels": image(f / "m.tif", (5, 8))}, ImageError, "the axes YX of the image"),
    "colours as masks": (
        lambda f: {"labels": image(f / "m.tif", (64, 80, 3), np.array([1, 2, 3], np.uint8))},
        ImageError,
        "the axes YX",
    ),
    "real numbers": (lambda f: {"labels": image(f / "m.tif", (64, 80), np.float32(0.5))}, ImageError, "whole numbers"),
    "large numbers": (
        lambda f: {"labels": image(f / "m.tif", (64, 80), np.uint32(2**30))},
        ImageError,
        "at most 16777216",
    ),
    "text as masks": (lambda f: {"labels": text(f / "m.tif")}, ImageError, "masks of x.tif"),
    "text as an image": (lambda f: {"image": text(f / "i.tif")}, ImageError, "x.tif"),
    "unknown objects": (lambda f: {"objects": [GivenObject(label=3)]}, RequestError, "which no pixel has"),
    "a group with a line break": (lambda f: {"group": "a\nb"}, RequestError, "printable"),
    "a long group": (lambda f: {"group": "a" * 200}, RequestError, "at most 128"),
}


def image(path: Path, shape: tuple[int, ...], value: Any = 1) -> Path:
    tifffile.imwrite(
        path,
        np.full(shape, value, getattr(value, "dtype", np.uint8)),
        photometric="rgb" if shape[-1] == 3 else "minisblack",
    )
    return path


def text(path: Path) -> Path:
    path.write_text("no image")
    return path


@pytest.mark.parametrize("case", WRONG)
def test_an_item_that_cannot_be_used_is_refused_and_leaves_nothing(
    cells: DatasetFolder, tmp_path: Path, case: str
) -> None:
    make, error, message = WRONG[case]
    given: dict[str, Any] = {"image": image(tmp_path / "plain.tif", (64, 80))} | make(tmp_path)
    with pytest.raises(error, match=message):
        cells.add_item("x.tif", given.pop("image"), caller=ADA, **given)
    assert not cells.items()
    assert not (cells.path / "images").exists()


def test_an_image_that_is_too_large_to_correct_is_refused(
    cells: DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_files, "MOST_PIXELS", 64 * 80 - 1)
    with pytest.raises(ImageError, match="at most 5119 pixels"):
        add(cells, tmp_path / "given")


ALONE = """
import sys
from pathlib import Path
from cytoray_services.corrections.edits import EDIT
from cytoray_services.corrections.label_tiles import object_table
from cytoray_services.corrections.store import DatasetStore
from cytoray_services.tokens.access import Caller
caller = Caller("ada", ("submit", "predict"))
cells = DatasetStore(Path(sys.argv[1])).create("cells", caller)
item = cells.add_item("x.tif", Path(sys.argv[2]), Path(sys.argv[3]), caller=caller)
edits = [
    {"op": "split", "label": 6, "line": [[40, 20], [40, 50]]},
    {"op": "paint", "label": 6, "stroke": [[40, 60]], "radius": 3},
    {"op": "finish", "region": {"outline": [[0, 0], [40, 0], [40, 60]]}},
]
item.edit([EDIT.validate_python(one) for one in edits], base=0, who="ada")
object_table(item.corrected())
cells.status()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.slow
def test_a_gateway_that_corrects_loads_no_science(cells: DatasetFolder, tmp_path: Path) -> None:
    add(cells, tmp_path / "given")
    given = [str(tmp_path / name) for name in ("alone", "given/image-0.tif", "given/masks-0.tif")]
    run = subprocess.run([sys.executable, "-c", ALONE, *given], capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & {"torch", "scipy", "numba", "skimage", "sklearn", "matplotlib", "bioio"}

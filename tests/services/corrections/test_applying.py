"""Edits change what they say, nothing else, and can be undone in any order that makes sense."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoray_analysis.errors import RequestError
from cytoray_services.corrections.applying import apply_edit
from cytoray_services.corrections.change import Change, CorrectedObject, StoredChange
from cytoray_services.corrections.corrected import Corrected, Recorded, replayed
from cytoray_services.corrections.edits import EDIT, Undo

SHAPE = (2, 5, 24, 24)
MODEL = CorrectedObject(confidence=0.5)


def three_squares() -> Corrected:
    labels = np.zeros(SHAPE, np.uint32)
    labels[0, 1:4, 2:8, 2:8] = 1
    labels[0, :, 2:8, 8:14] = 2
    labels[1, 2, 12:20, 12:20] = 5
    return Corrected(labels, {1: MODEL, 2: MODEL, 5: MODEL})


def do(corrected: Corrected, who: str = "ada", /, **edit: Any) -> Change:
    asked, change = apply_edit(corrected, EDIT.validate_python(edit), who)
    corrected.record(Recorded(asked, who, datetime.now(UTC), corrected.revision, change))
    return change


def pixels(corrected: Corrected, label: int) -> int:
    return int((corrected.labels == label).sum())


def require_whole(corrected: Corrected) -> None:
    """Check that the objects are those of the pixels."""
    assert set(np.unique(corrected.labels).tolist()) - {0} == set(corrected.objects)


def test_a_deleted_object_leaves_background_and_no_other_object_changes() -> None:
    corrected = three_squares()
    change = do(corrected, op="delete", labels=[1, 5])
    assert set(corrected.objects) == {2}
    assert pixels(corrected, 2) == 5 * 36
    assert pixels(corrected, 1) == 0
    assert change.box(SHAPE) == ((0, 2), (1, 4), (2, 20), (2, 20))


def test_an_added_object_takes_free_pixels_only_unless_it_is_told_to_take_others() -> None:
    square = [[4, 4], [12, 4], [12, 12], [4, 12]]
    corrected = three_squares()
    do(corrected, op="add", t=0, z=1, outline=square, **{"class": "mitotic"})
    assert pixels(corrected, 6) == 64 - 8 * 4
    assert pixels(corrected, 1) == 3 * 36
    assert corrected.objects[6] == CorrectedObject(made="person", by="ada", class_name="mitotic")
    do(corrected, op="add", t=0, z=1, outline=square, over=True)
    assert pixels(corrected, 7) == 64
    assert set(corrected.objects) == {1, 2, 5, 7}
    require_whole(corrected)


def test_a_number_is_never_used_again() -> None:
    corrected = three_squares()
    square = [[15, 1], [20, 1], [20, 5]]
    do(corrected, op="add", outline=square)
    do(corrected, op="undo")
    do(corrected, op="add", outline=square)
    assert set(corrected.objects) == {1, 2, 5, 7}


def test_a_brush_adds_to_an_object_erases_from_it_and_makes_new_ones() -> None:
    corrected = three_squares()
    do(corrected, op="paint", label=5, t=1, z=2, stroke=[[20, 12], [20, 20]], radius=2)
    assert pixels(corrected, 5) > 64
    do(corrected, op="paint", label=5, t=1, z=2, stroke=[[16, 16]], radius=30, erase=True)
    assert 5 not in corrected.objects
    do(corrected, op="paint", t=1, z=2, stroke=[[16, 16]], radius=2)
    assert set(corrected.objects) == {1, 2, 6}
    require_whole(corrected)


def test_a_merged_object_keeps_the_first_number() -> None:
    corrected = three_squares()
    do(corrected, op="merge", labels=[2, 1])
    assert pixels(corrected, 2) == (3 + 5) * 36
    assert set(corrected.objects) == {2, 5}
    assert pixels(corrected, 5) == 64


def test_the_largest_part_of_a_split_object_keeps_its_number_and_class() -> None:
    corrected = three_squares()
    do(corrected, op="class", labels=[1], **{"class": "big"})
    do(corrected, op="split", label=1, line=[[4, 0], [4, 10]])
    assert (pixels(corrected, 1), pixels(corrected, 6)) == (3 * 24, 3 * 12)
    assert corrected.objects[6] == CorrectedObject(made="person", by="ada", class_name="big")
    do(corrected, op="split", label=1, z=2, line=[[0, 5], [10, 5]])
    assert pixels(corrected, 7) == 12
    require_whole(corrected)


def test_an_object_is_copied_to_other_planes_and_interpolated_between() -> None:
    corrected = three_squares()
    do(corrected, op="copy_plane", label=5, t=1, **{"from": 2, "to": 3})
    assert pixels(corrected, 5) == 128
    do(corrected, op="paint", label=5, t=1, z=0, stroke=[[16, 16]], radius=1)
    do(corrected, op="interpolate", label=5, t=1, **{"from": 2, "to": 0})
    assert 4 < (corrected.labels[1, 1] == 5).sum() < 64


def test_regions_are_finished_and_reopened_by_number() -> None:
    corrected = three_squares()
    do(corrected, op="finish", region={"t": 0, "outline": [[0, 0], [10, 0], [10, 10]]})
    do(corrected, op="finish", region={"t": 1, "z": 2})
    do(corrected, op="reopen", region=1)
    assert list(corrected.regions) == [2]
    do(corrected, op="undo")
    assert set(corrected.regions) == {1, 2}


def test_objects_tell_who_made_them_and_whether_they_were_edited() -> None:
    corrected = three_squares()
    do(corrected, op="paint", label=1, z=1, stroke=[[1, 1]], radius=1)
    do(corrected, op="add", outline=[[15, 1], [20, 1], [20, 5]])
    assert {label: corrected.edited(label) for label in corrected.objects} == {1: True, 2: False, 5: False, 6: False}
    do(corrected, "ben", op="class", labels=[6], **{"class": "x"})
    assert corrected.edited(6)
    do(corrected, op="undo", edit=1)
    assert not corrected.edited(1)
    assert corrected.objects[6].by == "ada"


def test_an_earlier_edit_is_undone_unless_a_later_one_changed_the_same() -> None:
    corrected = three_squares()
    do(corrected, op="delete", labels=[1])
    do(corrected, op="delete", labels=[5])
    do(corrected, op="undo", edit=1)
    assert set(corrected.objects) == {1, 2}
    do(corrected, op="paint", label=1, z=1, stroke=[[4, 4]], radius=1, erase=True)
    with pytest.raises(RequestError, match="edit 4 did"):
        do(corrected, op="redo", edit=1)
    do(corrected, op="undo")
    do(corrected, op="redo", edit=1)
    assert set(corrected.objects) == {2}


def test_the_making_of_an_object_is_not_undone_while_a_later_edit_of_it_is_in_force() -> None:
    corrected = three_squares()
    do(corrected, op="add", outline=[[15, 1], [20, 1], [20, 5]])
    do(corrected, op="paint", label=6, stroke=[[20, 20]], radius=1)
    with pytest.raises(RequestError, match="edit 2 did"):
        do(corrected, op="undo", edit=1)
    do(corrected, op="undo")
    do(corrected, op="undo")
    assert set(corrected.objects) == {1, 2, 5}
    do(corrected, op="redo")
    do(corrected, op="redo")
    require_whole(corrected)


def test_an_edit_is_not_undone_while_later_ones_came_back_to_its_pixels() -> None:
    corrected = three_squares()
    square = [[15, 1], [20, 1], [20, 5], [15, 5]]
    do(corrected, op="add", outline=square)
    do(corrected, op="paint", stroke=[[17, 3]], radius=1, over=True)
    do(corrected, op="paint", label=6, stroke=[[17, 3]], radius=1, over=True)
    with pytest.raises(RequestError, match="edit 3 did"):
        do(corrected, op="undo", edit=1)
    for _ in range(3):
        do(corrected, op="undo")
    assert corrected.labels.tobytes() == three_squares().labels.tobytes()


def test_undo_without_a_number_is_of_what_came_into_force_last() -> None:
    corrected = three_squares()
    do(corrected, op="delete", labels=[1])
    do(corrected, op="delete", labels=[2])
    do(corrected, op="undo", edit=1)
    do(corrected, op="redo", edit=1)
    do(corrected, op="undo")
    assert set(corrected.objects) == {1, 5}


def test_undo_without_a_number_is_of_the_own_edits() -> None:
    corrected = three_squares()
    do(corrected, "ada", op="delete", labels=[1])
    do(corrected, "ben", op="delete", labels=[5])
    do(corrected, "ada", op="undo")
    assert set(corrected.objects) == {1, 2}
    with pytest.raises(RequestError, match="an edit of ada to undo, there is none"):
        do(corrected, "ada", op="undo")
    with pytest.raises(RequestError, match="an edit of ben to do again"):
        do(corrected, "ben", op="redo")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"op": "delete", "labels": [3]}, "got 3, which no object has"),
        ({"op": "paint", "label": 1, "z": 5, "stroke": [[1, 1]], "radius": 1}, "a plane from 0 to 4, got 5"),
        ({"op": "paint", "label": 1, "t": 2, "stroke": [[1, 1]], "radius": 1}, "a frame from 0 to 1, got 2"),
        ({"op": "paint", "label": 1, "z": 1, "stroke": [[5, 5]], "radius": 1}, "changes nothing"),
        ({"op": "paint", "stroke": [[5, 5]], "radius": 1, "erase": True}, "label of the object to erase"),
        ({"op": "add", "outline": [[100, 100], [200, 100], [200, 200]]}, "changes nothing"),
        ({"op": "merge", "labels": [1, 1]}, "changes nothing"),
        ({"op": "split", "label": 1, "line": [[20, 0], [20, 10]]}, "does not cross it"),
        ({"op": "split", "label": 1, "t": 1, "line": [[4, 0], [4, 10]]}, "does not cross it"),
        ({"op": "class", "labels": [1], "class": None}, "changes nothing"),
        ({"op": "copy_plane", "label": 1, "from": 0, "to": 1}, "a plane that contains object 1"),
        ({"op": "interpolate", "label": 1, "from": 1, "to": 2}, "planes in between"),
        ({"op": "finish", "region": {"outline": [[50, 50], [60, 50], [60, 60]]}}, "pixels of the image"),
        ({"op": "finish", "region": {"z": 9}}, "a plane from 0 to 4"),
        ({"op": "reopen", "region": 1}, "number of a finished region"),
        ({"op": "undo", "edit": 1}, "the number of an edit"),
        ({"op": "undo"}, "there is none"),
        ({"op": "redo"}, "there is none"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused_and_changes_nothing(edit: dict[str, Any], message: str) -> None:
    corrected = three_squares()
    before = corrected.labels.copy()
    with pytest.raises(RequestError, match=message):
        do(corrected, **edit)
    assert (corrected.labels == before).all()


COORDINATES = st.integers(-8, 112).map(lambda value: value / 4)
POINT = st.tuples(COORDINATES, COORDINATES)
LABEL = st.integers(1, 9)
FRAME, PLANE = st.integers(0, 1), st.integers(0, 4)
OVER = st.booleans()


def _edit(op: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"op": st.just(op), **fields})


POINTS = st.lists(POINT, min_size=3, max_size=5)
PLAIN = st.one_of(
    _edit("delete", labels=st.lists(LABEL, min_size=1, max_size=2)),
    _edit("add", t=FRAME, z=PLANE, outline=POINTS, over=OVER),
    _edit(
        "paint",
        label=st.none() | LABEL,
        t=FRAME,
        z=PLANE,
        stroke=POINTS,
        radius=st.integers(1, 4),
        erase=OVER,
        over=OVER,
    ),
    _edit("merge", labels=st.lists(LABEL, min_size=2, max_size=3)),
    _edit("split", label=LABEL, t=FRAME, z=st.none() | PLANE, line=POINTS),
    st.builds(
        lambda label, name: {"op": "class", "labels": [label], "class": name}, LABEL, st.sampled_from(["a", "b"])
    ),
    *(
        st.builds(
            lambda op, label, t, a, b, over: {"op": op, "label": label, "t": t, "from": a, "to": b, "over": over},
            st.just(op),
            LABEL,
            FRAME,
            PLANE,
            PLANE,
            OVER,
        )
        for op in ("copy_plane", "interpolate")
    ),
    _edit("finish", region=st.fixed_dictionaries({"t": st.none() | FRAME, "outline": st.none() | POINTS})),
    _edit("reopen", region=st.integers(1, 3)),
)
ANY = PLAIN | _edit("undo", edit=st.none() | st.integers(1, 12)) | _edit("redo", edit=st.none() | st.integers(1, 12))


def done(edits: list[dict[str, Any]]) -> Corrected:
    """Make the edits that can be made, each on what the earlier ones left."""
    corrected = three_squares()
    for edit in edits:
        before = corrected.labels.copy()
        try:
            change = do(corrected, **edit)
        except RequestError:
            assert (corrected.labels == before).all()
            continue
        changed = set(np.unique(before[before != corrected.labels]).tolist())
        changed |= set(np.unique(corrected.labels[before != corrected.labels]).tolist())
        assert changed - {0} <= change.touched
        require_whole(corrected)
    return corrected


@given(st.lists(ANY, max_size=14))
@settings(max_examples=120)
def test_undoing_all_edits_in_order_gives_the_same_bytes(edits: list[dict[str, Any]]) -> None:
    corrected, start = done(edits), three_squares()
    while any(corrected.in_force(number) for number in range(1, corrected.revision + 1)):
        do(corrected, op="undo")
    assert corrected.labels.tobytes() == start.labels.tobytes()
    assert (corrected.objects, corrected.regions) == (start.objects, {})


@given(st.lists(ANY, max_size=14), st.integers(0, 14))
@settings(max_examples=120)
def test_replaying_the_stored_log_gives_the_same_labels(edits: list[dict[str, Any]], drawn: int) -> None:
    corrected = done(edits)
    log = [
        Recorded(
            EDIT.validate_json(one.edit.model_dump_json()),
            one.who,
            one.when,
            one.base,
            Change.of(StoredChange.model_validate_json(one.change.stored().model_dump_json())),
        )
        for one in corrected.log
    ]
    again = replayed(three_squares().labels, three_squares().objects, log)
    assert again.labels.tobytes() == corrected.labels.tobytes()
    assert (again.objects, again.regions, again.highest) == (corrected.objects, corrected.regions, corrected.highest)
    # What was written last may be newer than the revision that was noted.
    newer = replayed(corrected.labels.copy(), three_squares().objects, log, min(drawn, len(log)))
    assert newer.labels.tobytes() == corrected.labels.tobytes()
    assert [again.edited(label) for label in again.objects] == [newer.edited(label) for label in newer.objects]


@given(st.lists(PLAIN, max_size=6), st.sampled_from(["merge", "split", "delete"]), st.data())
@settings(max_examples=80)
def test_deleting_merging_and_splitting_leave_other_objects_as_they_are(
    edits: list[dict[str, Any]], op: str, data: st.DataObject
) -> None:
    corrected = done(edits)
    labels = sorted(corrected.objects)
    if len(labels) < 3:
        return
    chosen = data.draw(st.permutations(labels))[:2]
    before = corrected.labels.copy()
    edit: dict[str, Any] = {"op": op, "labels": chosen}
    if op == "split":
        edit = {"op": op, "label": chosen[0], "line": data.draw(POINTS)}
    try:
        do(corrected, **edit)
    except RequestError:
        return
    others = ~np.isin(before, [0, *chosen[: 1 if op == "split" else 2]])
    assert (corrected.labels[others] == before[others]).all()
    assert (corrected.labels[before == 0] == 0).all()


def test_a_thousand_edits_and_their_undo_give_the_same_bytes() -> None:
    corrected, rng = three_squares(), np.random.default_rng(1)
    start = corrected.labels.tobytes()
    for _ in range(1000):
        x, y = rng.uniform(0, 24, 2).tolist()
        if rng.random() < 0.5 or not corrected.objects:
            edit: dict[str, Any] = {"op": "paint", "stroke": [[x, y]], "radius": 2, "over": True}
        else:
            edit = {"op": "delete", "labels": [int(rng.choice(sorted(corrected.objects)))]}
        do(corrected, **edit)
    for _ in range(1000):
        do(corrected, op="undo")
    assert corrected.revision == 2000
    assert corrected.labels.tobytes() == start
    assert isinstance(corrected.log[-1].edit, Undo)

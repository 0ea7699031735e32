"""Where answers go, and what is never replaced."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_serving.answers import answer_kinds, forms_of
from cytoray_serving.predict.answer_record import RECORD, AnswerRecord, fingerprint
from cytoray_serving.predict.answer_writer import AnswerWriter
from cytoray_serving.predict.input_files import InputFile
from cytoray_serving.predict.output_files import (
    Existing,
    Planned,
    make_folder,
    name_outputs,
    plan_outputs,
    require_not_given,
)
from cytoray_serving.schema import ModelAnswered

MODEL = ModelAnswered(name="m", version=None, digest="d" * 64)
NAMES = st.text(alphabet="aAbB.-2é", min_size=1, max_size=5).filter(lambda name: name.strip(".") != "")


def stems_of(*names: str, suffixes: tuple[str, ...] = (".tif",)) -> list[str]:
    files = [InputFile(Path(name), PurePath(name)) for name in names]
    return [path.relative_to("out").as_posix() for path in name_outputs(files, Path("out"), suffixes)]


def test_names_are_different_whatever_their_capitals() -> None:
    assert stems_of("A.tif", "a.png", "b.tif") == ["A", "a-2", "b"]
    assert stems_of("zelle\u0301.tif", "zell\u00e9.png") == ["zell\u00e9", "zell\u00e9-2"]


def test_a_number_is_none_that_another_input_has() -> None:
    assert stems_of("img.tif", "img.png", "img-2.tif") == ["img", "img-3", "img-2"]


def test_dots_and_folders_are_kept() -> None:
    assert stems_of("A/plate1.A0.ome.tif", "B/plate1.A0.ome.tif") == ["A/plate1.A0", "B/plate1.A0"]


def test_the_suffixes_of_forms_do_not_meet() -> None:
    assert stems_of("a.tif", "a.overlay.tif", suffixes=(".overlay.png", ".png")) == ["a", "a.overlay-2"]
    for forms in map(forms_of, answer_kinds()):
        assert len({form.suffix for form in forms.values()}) == len(forms)


@given(st.lists(st.tuples(NAMES, st.sampled_from([".tif", ".png", ".ome.tif"])).map("".join), max_size=8))
def test_no_two_answers_have_one_name(names: list[str]) -> None:
    ends = (".tif", ".overlay.png", ".png")
    stems = stems_of(*names, suffixes=ends)
    files = [f"{stem}{end}".casefold() for stem in stems for end in ends]
    assert len(set(files)) == len(files)


def test_what_is_read_is_never_replaced(tmp_path: Path) -> None:
    for name in ("a.tif", "boxes.csv"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link.tif").hardlink_to(tmp_path / "a.tif")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "t000.tif").write_bytes(b"x")
    given_paths = [tmp_path / "a.tif", tmp_path / "boxes.csv", tmp_path / "frames"]
    for name in ("a.tif", "boxes.csv", "link.tif", "frames/t000.tif"):
        with pytest.raises(RequestError, match="never replaced"):
            require_not_given([(tmp_path / "b.tif", tmp_path / name)], given_paths)
    require_not_given([(tmp_path / "a.tif", tmp_path / "a.csv")], given_paths)


class Folder:
    """A folder of answers of one input, as predict fills it."""

    def __init__(self, root: Path) -> None:
        self.out = root / "out"
        self.source = InputFile(root / "a.tif", PurePath("a.tif"))
        self.source.path.write_bytes(b"image")
        self.out.mkdir()
        self.answer = self.out / "a.tif"

    def plan(self, existing: Existing, *, digest: str = MODEL.digest, boxes: str | None = None) -> tuple[int, int]:
        """Return how many answers are to be written, and how many are skipped."""
        planned, skipped = plan_outputs(
            [(self.source, self.out / "a")],
            lambda stem, form: [(form, stem.with_name(stem.name + "." + form))],
            ["tif"],
            digest,
            lambda _: {"boxes": boxes},
            AnswerRecord(self.out),
            existing,
        )
        return sum(len(one.formats) for one in planned), len(skipped)

    def write(self, body: bytes, *, overwrite: bool = False) -> AnswerWriter:
        planned = Planned(self.source, self.out / "a", ("tif",))
        writer = AnswerWriter(planned, AnswerRecord(self.out), {"boxes": None}, overwrite=overwrite)
        writer.write("tif", ".tif", MODEL, lambda draft: draft.write_bytes(body))
        return writer


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_what_exists_is_named_before_anything_starts(folder: Folder) -> None:
    assert folder.plan("refuse") == (1, 0)
    folder.write(b"answer")
    with pytest.raises(RequestError, match=r"out/a\.tif") as refused:
        folder.plan("refuse")
    assert "--skip-existing" in str(refused.value.hint)
    assert "--overwrite" in str(refused.value.hint)


def test_what_the_same_model_and_options_answered_is_skipped(folder: Folder) -> None:
    folder.write(b"answer")
    assert folder.plan("skip") == (0, 1)
    assert folder.plan("overwrite") == (1, 0)


def test_answers_of_another_model_options_or_image_are_not_skipped(folder: Folder) -> None:
    folder.write(b"answer")
    with pytest.raises(RequestError, match="another model"):
        folder.plan("skip", digest="e" * 64)
    with pytest.raises(RequestError, match="other options"):
        folder.plan("skip", boxes="other")
    folder.source.path.write_bytes(b"another image")
    with pytest.raises(RequestError, match="another image"):
        folder.plan("skip")


def test_a_file_that_predict_did_not_write_is_not_skipped(folder: Folder) -> None:
    folder.answer.write_bytes(b"mine")
    with pytest.raises(RequestError, match="not in the record of answers"):
        folder.plan("skip")


def test_a_corrected_answer_stays_when_answers_are_skipped(folder: Folder) -> None:
    folder.write(b"answer")
    folder.answer.write_bytes(b"corrected")
    assert folder.plan("skip") == (0, 1)
    assert folder.answer.read_bytes() == b"corrected"


def test_a_corrected_answer_is_moved_aside_when_answers_are_replaced(folder: Folder) -> None:
    folder.write(b"answer")
    for number, name in enumerate(("a.edited.tif", "a.edited-2.tif")):
        folder.answer.write_bytes(b"corrected %d" % number)
        assert folder.write(b"new", overwrite=True).kept == [folder.out / name]
        assert (folder.out / name).read_bytes() == b"corrected %d" % number
        assert folder.answer.read_bytes() == b"new"


def test_an_answer_as_it_was_written_is_replaced(folder: Folder) -> None:
    folder.write(b"answer")
    assert folder.write(b"new", overwrite=True).kept == []
    assert sorted(path.name for path in folder.out.iterdir()) == [RECORD, "a.tif"]


def test_a_folder_of_others_is_not_replaced(folder: Folder) -> None:
    folder.answer.mkdir()
    with pytest.raises(RequestError, match="did not write"):
        folder.plan("overwrite")


def test_what_appears_in_the_meantime_stays(folder: Folder) -> None:
    planned = Planned(folder.source, folder.out / "a", ("tif",))
    writer = AnswerWriter(planned, AnswerRecord(folder.out), {}, overwrite=False)

    def fill(draft: Path) -> None:
        draft.write_bytes(b"late")
        folder.answer.write_bytes(b"early")

    writer.write("tif", ".tif", MODEL, fill)
    assert [type(error) for error in writer.errors] == [RequestError]
    assert folder.answer.read_bytes() == b"early"


def test_a_failed_answer_leaves_nothing(folder: Folder) -> None:
    planned = Planned(folder.source, folder.out / "a", ("tif",))
    writer = AnswerWriter(planned, AnswerRecord(folder.out), {}, overwrite=False)

    def fill(draft: Path) -> None:
        draft.write_bytes(b"half")
        raise OSError(28, "the disk is full on device", str(draft))

    writer.write("tif", ".tif", MODEL, fill)
    (error,) = writer.errors
    assert isinstance(error, PlatformError)
    assert "the disk is full" in error.message
    assert list(folder.out.iterdir()) == []


def test_a_damaged_record_makes_answers_unknown_and_goes_on(folder: Folder) -> None:
    folder.write(b"answer")
    (folder.out / RECORD).write_bytes(b'{"output": "a.tif"')
    with pytest.raises(RequestError, match="not in the record of answers"):
        folder.plan("skip")
    folder.write(b"new", overwrite=True)
    assert folder.plan("skip") == (0, 1)


def test_a_fingerprint_of_a_folder_is_of_all_it_holds(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        (root / "below").mkdir(parents=True)
        (root / "below" / "a").write_bytes(b"a")
    assert fingerprint(one) == fingerprint(other)
    (other / "below" / "a").write_bytes(b"b")
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(PlatformError, match="cannot write into"):
        make_folder(tmp_path / "out")


def test_a_file_is_no_folder_for_answers(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    for path in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(RequestError, match="expected a folder"):
            make_folder(path)

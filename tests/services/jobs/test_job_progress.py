"""How far a training run has come is read in the lines that it prints."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import PlatformError
from cytoray_services.jobs.job import Job, Progress
from cytoray_services.jobs.progress import epoch_line, training_progress, with_progress
from job_samples import Unasked

numbers = st.floats(0, 1e4)
NOISE = "reading images\nepoch of nothing\nepoch 1/2 is not such a line\n(RayTrainWorker) loss 0.3\n"


class Printing(Unasked):
    """What a job has printed; None where that cannot be read."""

    def __init__(self, text: str | None) -> None:
        self._text = text

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        if self._text is None:
            raise PlatformError("it has no output yet")
        yield from self._text


def job(**fields: object) -> Job:
    return Job.model_validate({"id": "nuclei-x7k2q", "name": "nuclei", "state": "running", "place": "local"} | fields)


@given(
    st.sampled_from(["ap50", "pearson/DNA", "f1"]),
    st.integers(1, 500),
    st.integers(0, 500),
    numbers,
    numbers,
    numbers,
    st.integers(0, 10**6),
    st.integers(1, 9),
)
def test_a_line_is_read_as_it_was_written(
    metric: str, epoch: int, more: int, loss: float, score: float, speed: float, seconds: int, cut: int
) -> None:
    line = epoch_line(epoch, epoch + more, loss, {metric: score, "pq": 0.5}, speed, seconds)
    text = f"{NOISE}{line}\n{NOISE}"
    found = training_progress(text[at : at + cut] for at in range(0, len(text), cut))
    assert found is not None
    assert (found.unit, found.done, found.total, found.score_name) == ("epochs", epoch, epoch + more, metric)
    assert found.score == pytest.approx(score, abs=1e-3)
    assert found.seconds_left == pytest.approx(seconds / epoch * more)


def test_the_last_score_counts_where_the_last_epoch_was_not_validated() -> None:
    lines = [epoch_line(1, 3, 0.5, {"f1": 0.25}, 10, 60), epoch_line(2, 3, float("nan"), {}, 10, 120)]
    found = training_progress(["\n".join(lines)])
    assert found == Progress(unit="epochs", done=2, total=3, score=0.25, score_name="f1", seconds_left=60)
    assert str(found) == "epoch 2 of 3, f1 0.250, 1:00 left"
    assert training_progress([NOISE]) is None


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (
            Progress(unit="images", done=3, total=9, failed=1, seconds_left=75),
            "3 of 9 images done, 1 failed, 1:15 left",
        ),
        (Progress(unit="images", done=0), "0 of ? images done, 0 failed"),
        (Progress(unit="epochs", done=3, total=3, seconds_left=0), "epoch 3 of 3"),
    ],
)
def test_progress_is_said_in_one_line(progress: Progress, shown: str) -> None:
    assert str(progress) == shown


def test_only_a_running_job_without_progress_is_asked_for_what_it_has_printed() -> None:
    line = epoch_line(1, 2, 0.5, {"f1": 0.25}, 10, 60)
    found = with_progress(Printing(line), job()).progress
    assert found is not None
    assert found.done == 1
    assert with_progress(Printing(None), job()).progress is None
    assert with_progress(Printing(line), job(state="queued")).progress is None
    known = Progress(unit="epochs", done=7)
    assert with_progress(Printing(line), job(progress=known)).progress == known

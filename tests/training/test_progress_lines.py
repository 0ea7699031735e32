"""The line that a training run prints after an epoch contains its progress for readers of its log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cytoray_services.jobs.progress import training_progress
from cytoray_training.run.progress_bar import ProgressBar


@pytest.mark.parametrize("metric", ["macro_f1", "pearson/DNA", "ap50"])
def test_an_epoch_is_one_line_with_the_score_that_decides(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    facts = {"stage": "epoch", "epoch": 1.0, "loss": 0.25, "images_per_second": 12.5, "elapsed": 61.0}
    with ProgressBar(4, metric) as bar:
        bar.show(facts | {metric: 0.75, "pq": 0.5, "mse": 1.0})
    (line,) = capsys.readouterr().err.splitlines()
    found = training_progress([line])
    assert found is not None
    assert (found.done, found.total, found.score_name, found.score) == (2, 4, metric, 0.75)
    assert found.seconds_left == 61


def test_the_score_of_an_epoch_is_that_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    bar = ProgressBar(3, "balanced_accuracy")
    monkeypatch.setattr(bar, "_console", Console(file=shown, width=200))
    epoch = {"stage": "epoch", "epoch": 0, "loss": 0.5, "images_per_second": 10.0, "elapsed": 61.0}
    bar.show(epoch)
    bar.show(epoch | {"epoch": 1, "balanced_accuracy": 0.75, "accuracy": 0.9})
    assert shown.getvalue().splitlines() == [
        "epoch 1/3  loss 0.500  10.0 images/s  1:01",
        "epoch 2/3  loss 0.500  balanced_accuracy 0.750  10.0 images/s  1:01",
    ]

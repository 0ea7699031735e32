"""What Prometheus has of a training run, from the lines of its progress file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from cytoray_training.plan.plan import Plan
from cytoray_training.run.progress_metrics import GAUGES, progress_metrics

MakePlan = Callable[..., Plan]
EPOCH = {"stage": "epoch", "epoch": 4.0, "loss": 0.5, "images_per_second": 80.0, "wait_fraction": 0.25, "elapsed": 9.0}


class Kept:
    """A gauge that is read instead of exported."""

    values: ClassVar[dict[str, tuple[float, dict[str, str]]]] = {}

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self._name = name

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values[self._name] = (value, tags)


@pytest.fixture
def values_of(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, float]]:
    """Give the function that passes on lines and returns what the gauges said while the training went on."""
    monkeypatch.setattr("ray.util.metrics.Gauge", Kept)
    monkeypatch.setattr(Kept, "values", {})

    def tell(*lines: Mapping[str, Any], **training: Any) -> dict[str, float]:
        with progress_metrics(make_plan(**training), "tiny-run") as listen:
            for line in lines:
                listen(line)
            assert all(tags == {"model": "tiny", "run": "tiny-run"} for _, tags in Kept.values.values())
            return {name.removeprefix("cytoray_training_"): value for name, (value, _) in Kept.values.items()}

    return tell


def test_an_epoch_states_everything_but_the_workers(values_of: Callable[..., dict[str, float]]) -> None:
    values = values_of({**EPOCH, "msa": 0.75, "ap70": 0.5}, epochs=8)
    moved = values.pop("moved_timestamp_seconds")
    assert moved > 1.7e9
    assert values == {
        "loss": 0.5,
        "epoch": 5.0,
        "epochs": 8.0,
        "crops_per_second": 80.0,
        "waiting_share": 0.25,
        "score": 0.75,
    }


def test_the_score_is_the_metric_that_the_recipe_names(values_of: Callable[..., dict[str, float]]) -> None:
    assert values_of({**EPOCH, "ap50": 0.75, "ap70": 0.5}, metric="ap70")["score"] == 0.5


def test_what_a_line_does_not_say_stays_as_it_was(values_of: Callable[..., dict[str, float]]) -> None:
    workers = {"stage": "workers", "workers": 3}
    step = {"stage": "training", "epoch": 5, "step": 40, "loss": 0.25, "images_per_second": 90.0}
    values = values_of(workers, {**EPOCH, "msa": 0.75}, step)
    assert (values["workers"], values["score"], values["loss"], values["epoch"]) == (3.0, 0.75, 0.25, 6.0)


def test_decoding_images_is_progress_too(values_of: Callable[..., dict[str, float]]) -> None:
    assert set(values_of({"stage": "decoding", "done": 1, "total": 9})) == {"epochs", "moved_timestamp_seconds"}


def test_every_gauge_is_used(values_of: Callable[..., dict[str, float]]) -> None:
    values = values_of({"stage": "workers", "workers": 1}, {**EPOCH, "msa": 0.75})
    assert {f"cytoray_training_{name}" for name in values} == set(GAUGES)

"""A further kind of task, in a folder of its own, goes the whole way: nothing else is changed for it.

The folder ``tests/fifth_kind`` is like a package of another laboratory: three entry points name its task, how its
data are read, and how its answers are sent.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

import cytoray
from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import DatasetError
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import DataSource, open_dataset
from cytoray_services.datasets.check import check_dataset
from cytoray_services.evaluation.baselines import baseline_scores
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_services.evaluation.pictures import evaluation_pictures
from cytoray_services.promotion.evaluation_set import freeze
from cytoray_services.promotion.gate import PromotionRequest, promote
from cytoray_services.registry import ModelVersion, Registry
from cytoray_services.settings import Settings
from cytoray_services.storage.allowed import Allowed
from cytoray_serving.jobs.plan import plan
from cytoray_serving.jobs.request import JobRequest
from cytoray_serving.jobs.work import Task, Worker
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.schema import ModelAnswered
from cytoray_serving.service.app import example_request
from job_samples import new_job
from promotion_models import local
from serving_in_process import Ask, asker, config_of, in_process

FOLDER = Path(__file__).parents[1] / "fifth_kind"
SIDE, CELL = 64, 16
BOXES = ((4, 6), (36, 30))  # where the two cells of an image begin


@pytest.fixture(scope="module", autouse=True)
def _installed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield


def write_data(folder: Path, images: int, seed: int, splits: tuple[str, ...]) -> Path:
    """Write images of two squares each, whose brightness is what is to be measured."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "amount", "split", "xmin", "ymin", "xmax", "ymax"])
        for number in range(images):
            pixels = random.normal(100, 5, (SIDE, SIDE))
            pixels[:8, -8:] = 1000  # so that scaling knows what bright is
            name = f"images/{number:03d}.tif"
            for y, x in BOXES:
                amount = random.uniform(1, 9)
                pixels[y : y + CELL, x : x + CELL] += 100 * amount
                rows.writerow([name, f"{amount:.3f}", splits[number % len(splits)], x, y, x + CELL, y + CELL])
            tifffile.imwrite(folder / name, pixels.clip(0).astype(np.uint16))
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return local(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("amounts") / "data", 24, 0, ("train", "train", "val"))


@pytest.fixture(scope="module")
def version(settings: Settings, data: Path) -> ModelVersion:
    """Train without Ray, and publish."""
    from cytoray_training.plan.planning import make_plan
    from cytoray_training.publish.publish import publish
    from cytoray_training.recipe import parse_recipe
    from cytoray_training.run.loop import train
    from cytoray_training.run.reporter import FolderReporter

    network = {"name": "cnn", "arguments": {"widths": [8, 16], "dropout": 0.0}}
    training = {
        "epochs": 12,
        "crops_per_epoch": 64,
        "crop_size": CELL,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "engine": "torch",
        "precision": "fp32",
        "ema_decay": 0.9,
        "validate_every": 4,
    }
    recipe = parse_recipe(
        {
            "model": {"name": "amounts", "task": {"name": "measurement"}, "network": network},
            "data": {"root": str(data), "channels": "grey"},
            "training": training,
            "augmentation": {"gain": 0.0, "offset": 0.0, "gamma": [1.0, 1.0], "colour": 0.0},
        }
    )
    plan_of_run = make_plan(recipe, settings)
    assert plan_of_run.metric == "mean_error"
    folder = settings.home / "runs" / "amounts"
    reporter = FolderReporter(folder)
    train(plan_of_run, reporter, device=torch.device("cpu"))
    checkpoint = reporter.latest()
    assert checkpoint is not None
    registry = Registry.open(settings)
    with registry.start_run("amounts", folder.name) as run:
        published = publish(plan_of_run, checkpoint, folder, run, registry)
    assert published.version is not None
    return published.version


@pytest.fixture(scope="module")
def champion(settings: Settings, version: ModelVersion, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """Promote it by other images."""
    folder = write_data(tmp_path_factory.mktemp("frozen") / "set", 12, 1, ("test",))
    frozen = freeze(DataSource((folder,), "amount"), "all")
    return promote(Registry.open(settings), version, PromotionRequest(given=frozen)).version


@pytest.fixture
def ask(settings: Settings, champion: ModelVersion) -> Ask:
    return asker(in_process(settings, config_of(["amounts@champion"])))


def question(folder: Path) -> dict[str, Any]:
    image = next((folder / "images").iterdir())
    boxes = [[x, y, x + CELL, y + CELL] for y, x in BOXES]
    return {"files": {"image": image.read_bytes()}, "data": {"boxes": json.dumps(boxes)}}


def test_its_data_are_opened_by_their_column_and_checked(data: Path) -> None:
    dataset = open_dataset(data)
    assert dataset.truth_kind == "amount"
    assert [finding for finding in check_dataset(dataset) if finding.severity == "error"] == []
    with pytest.raises(DatasetError, match=r"expected a column for the label in .*; it has image, amount"):
        open_dataset(data, truth="class")


@pytest.mark.slow
def test_it_learns_more_than_its_baseline_and_is_drawn(settings: Settings, version: ModelVersion, data: Path) -> None:
    predictor = Predictor(Bundle.load(Registry.open(settings).fetch(version)))
    whole = open_dataset(data)
    part = whole.split("val")
    evaluation = evaluate(predictor, part)
    baseline = baseline_scores(whole, part, predictor.bundle.spec)
    assert evaluation.metrics["mean_error"] < baseline["mean_error"] / 2
    assert evaluation.intervals["mean_error"].low <= evaluation.metrics["mean_error"]
    assert evaluation_pictures(evaluation)["amounts"].startswith(b"\x89PNG")


@pytest.mark.slow
def test_it_passes_the_gate(champion: ModelVersion) -> None:
    assert "champion" in champion.aliases


def test_it_is_served_in_every_form(ask: Ask, data: Path) -> None:
    (status,) = ask("GET", "/models").json()["models"]
    assert status["kind"] == "amount"
    answer = ask("POST", "/models/amounts/predict", **question(data))
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Cytoray-Objects"] == "2"
    assert answer.json()["number"] == [1, 2]
    for media_type in status["media_types"]:
        assert ask("POST", "/models/amounts/predict", headers={"Accept": media_type}, **question(data)).content
    document = ask("GET", "/openapi.json").json()
    answers = document["paths"]["/models/{model}/predict"]["post"]["responses"]["200"]["content"]
    assert set(status["media_types"]) <= set(answers)
    assert "masks=@" in example_request("http://127.0.0.1:8000", "amounts", "amount", token=False)


def test_its_tensors_are_described_and_sent_over_the_open_inference_protocol(ask: Ask, data: Path) -> None:
    described = ask("GET", "/v2/models/amounts").json()
    assert {one["name"] for one in described["inputs"]} == {"image", "masks", "boxes"}
    assert described["outputs"] == [{"name": "amounts", "datatype": "FP32", "shape": [-1, 1]}]
    pixels = tifffile.imread(next((data / "images").iterdir()))
    boxes = [[x, y, x + CELL, y + CELL] for y, x in BOXES]
    asked = {
        "inputs": [
            {"name": "image", "datatype": "UINT16", "shape": list(pixels.shape), "data": pixels.ravel().tolist()},
            {"name": "boxes", "datatype": "FP64", "shape": [2, 4], "data": np.ravel(boxes).tolist()},
        ]
    }
    (output,) = ask("POST", "/v2/models/amounts/infer", json=asked).json()["outputs"]
    served = ask("POST", "/models/amounts/predict", **question(data)).json()["amount"]
    np.testing.assert_allclose(output["data"], served, rtol=1e-4)


def test_it_answers_in_bulk(settings: Settings, champion: ModelVersion, data: Path, tmp_path: Path) -> None:
    """A job reads the boxes from the manifest's columns; its worker is asked as the driver asks it."""
    bundle = Bundle.load(Registry.open(settings).fetch(champion))
    request = JobRequest(
        input=(data / "images").as_uri(),
        output=(tmp_path / "out").as_uri(),
        format="csv",
        boxes=(data / "manifest.csv").as_uri(),
    )
    job = new_job(
        steps=(champion.exact_reference,),
        models=(ModelAnswered(name=champion.name, version=champion.version, digest=bundle.digest),),
        request=request,
        allowed=Allowed(roots=(data, tmp_path)),
        options=ReplicaOptions(threads=1),
    )
    worker = Worker(job, settings)
    items = plan(job.request, job.allowed, movies=False, spatial_axes="YX").items
    records = [worker.work(Task(kind="item", item=item)) for item in items]
    assert [record.error for record in records if record.kind != "done"] == []
    assert sum(record.objects for record in records) == 48
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "000.csv").read_text())))
    assert [row["number"] for row in rows] == ["1", "2"]


def test_it_answers_through_the_public_face(
    settings: Settings, champion: ModelVersion, data: Path, tmp_path: Path
) -> None:
    model = cytoray.load_model("amounts@champion", settings=settings)
    boxes = [[x, y, x + CELL, y + CELL] for y, x in BOXES]
    answer = model.predict(next((data / "images").iterdir()), boxes=boxes)
    assert "2 cells" in repr(answer)
    assert list(answer.table()["number"]) == [1, 2]
    assert answer.save(tmp_path / "cells.csv").read_text().startswith("number,amount")

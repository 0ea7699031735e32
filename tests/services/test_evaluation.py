import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import DatasetError, ImageError
from cytoray_analysis.images import image_from_array, write_image, write_labels
from cytoray_analysis.networks import build_network
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks.instance_scores import METRICS
from cytoray_services.commands.root import main
from cytoray_services.datasets import Dataset, open_dataset
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_services.evaluation.pictures import evaluation_pictures
from cytoray_services.kinds.evaluated import Evaluation, extremes
from cytoray_services.registry import Registry
from cytoray_services.registry.model_card import model_card
from cytoray_services.settings import load_settings
from cytoray_services.statistics.intervals import Interval

NETWORK = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 3, "widths": [4, 8]})
ERRORS = ("count_error", "split", "merged", "missed", "invented")
SCORES = tuple(name for name in METRICS if name not in ERRORS)
SPEC = BundleSpec(
    name="cells",
    task=TaskChoice(),
    input=ModelInput(),
    network=NETWORK,
    # An untrained network has no opinion; with these it still finds some objects.
    decode={"foreground": -10.0, "votes": 1.0, "smallest": 1.0},
    provenance={"recipe": "abc", "data": {"train": "d1"}},
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    weights = build_network(NETWORK.name, NETWORK.arguments).state_dict()
    folder = tmp_path_factory.mktemp("bundles") / "cells"
    return write_bundle(folder, SPEC, weights, test_input=np.zeros((1, 16, 16), np.float32), card="# cells\n")


@pytest.fixture(scope="module")
def predictor(bundle: Bundle) -> Predictor:
    return Predictor(bundle, device="cpu", precision="fp32")


def write_dataset(
    folder: Path, rows: Sequence[dict[str, str]], truths: Sequence[np.ndarray], images: Sequence[np.ndarray]
) -> Path:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "mask", "split", "kind"])
        writer.writeheader()
        for number, (row, truth, image) in enumerate(zip(rows, truths, images, strict=True)):
            names = {"image": f"images/{number}.tif", "mask": f"masks/{number}.tif"}
            write_image(folder / names["image"], image_from_array(image, "YX"))
            write_labels(folder / names["mask"], truth)
            writer.writerow({**names, **row})
    return folder


@pytest.fixture(scope="module")
def self_made(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose truth is what the model answers, but for the images of the kind "wrong"."""
    random = np.random.default_rng(0)
    shapes = [(48, 64), (48, 64), (64, 48), (48, 64), (80, 80)]
    images = [random.integers(0, 255, shape).astype(np.uint8) for shape in shapes]
    answers = [predictor.predict(image_from_array(image, "YX")).answer for image in images]
    assert all(answer.max() > 0 for answer in answers)
    kinds = ["right", "wrong", "right", "right", "wrong"]
    truths = [answer if kind == "right" else np.zeros_like(answer) for kind, answer in zip(kinds, answers, strict=True)]
    rows = [{"split": "train" if number == 3 else "val", "kind": kind} for number, kind in enumerate(kinds)]
    return write_dataset(tmp_path_factory.mktemp("data"), rows, truths, images)


def validation(folder: Path) -> Dataset:
    return open_dataset(folder).split("val")


def test_answers_that_are_the_truth_score_one(predictor: Predictor, self_made: Path) -> None:
    evaluation = evaluate(predictor, validation(self_made).where("kind", "right"))
    assert len(evaluation.items) == 2
    assert evaluation.metrics == dict.fromkeys(SCORES, 1.0) | dict.fromkeys(ERRORS, 0.0)
    assert next(iter(evaluation.metrics)) == "msa"


def test_scores_are_pooled_over_all_images_and_over_each_group(predictor: Predictor, self_made: Path) -> None:
    seen: list[tuple[int, int]] = []
    evaluation = evaluate(predictor, validation(self_made), by="kind", progress=lambda *state: seen.append(state))
    assert [score.image.name for score in evaluation.items] == ["0.tif", "1.tif", "2.tif", "4.tif"]
    right = sum(score.prediction.objects for score in evaluation.items if score.group == "right")
    wrong = sum(score.prediction.objects for score in evaluation.items if score.group == "wrong")
    assert evaluation.metrics["ap50"] == pytest.approx(right / (right + wrong))
    assert evaluation.groups["right"]["ap50"] == 1.0
    assert evaluation.groups["wrong"]["ap50"] == 0.0
    assert [score.metrics["ap50"] for score in evaluation.items] == [1.0, 0.0, 1.0, 0.0]
    assert seen[-1] == (4, 4)
    assert evaluation.seconds > 0


def test_a_truth_of_another_size_is_named(predictor: Predictor, tmp_path: Path) -> None:
    image, truth = np.ones((32, 32), np.uint8), np.ones((32, 16), np.int32)
    folder = write_dataset(tmp_path, [{"split": "val", "kind": "a"}], [truth], [image])
    with pytest.raises(DatasetError, match=r"masks/0\.tif to have the size of its answer"):
        evaluate(predictor, validation(folder))


def test_an_image_that_the_model_cannot_take_is_named(predictor: Predictor, tmp_path: Path) -> None:
    image = np.full((32, 32), np.nan, np.float32)
    folder = write_dataset(tmp_path, [{"split": "val", "kind": "a"}], [np.ones((32, 32), np.int32)], [image])
    with pytest.raises(ImageError, match=r"images/0\.tif"):
        evaluate(predictor, validation(folder))


def test_a_missing_truth_is_named(predictor: Predictor, self_made: Path) -> None:
    dataset = validation(self_made)
    without = replace(dataset, items=(replace(dataset.items[0], truth=None),))
    with pytest.raises(DatasetError, match=r"none for .*0\.tif"):
        evaluate(predictor, without)


def test_grouping_by_an_unknown_column_says_which_there_are(predictor: Predictor, self_made: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        evaluate(predictor, validation(self_made), by="stain")
    assert "image, mask, split, kind" in (caught.value.hint or "")


def test_extremes_are_the_worst_and_the_best_and_none_twice(predictor: Predictor, self_made: Path) -> None:
    evaluation = evaluate(predictor, validation(self_made))
    worst, best = extremes(evaluation, 3)
    assert [score.metrics["ap50"] for score in worst] == [0.0, 0.0, 1.0]
    assert [score.metrics["ap50"] for score in best] == [1.0]
    assert {id(score) for score in worst}.isdisjoint(id(score) for score in best)


def test_among_equal_images_those_with_more_objects_are_shown(predictor: Predictor, self_made: Path) -> None:
    done = evaluate(predictor, validation(self_made)).items[0]
    scores = tuple(
        replace(done, prediction=replace(done.prediction, objects=objects), metrics={"ap50": value})
        for objects, value in [(0, 1.0), (9, 1.0), (1, 0.0), (7, 0.0)]
    )
    worst, best = extremes(Evaluation({"ap50": 0.5}, {}, scores, 1.0, {}, "ap50"), 1)
    assert (worst[0].prediction.objects, best[0].prediction.objects) == (7, 9)


@pytest.mark.slow
def test_the_worst_and_the_best_are_drawn(predictor: Predictor, self_made: Path) -> None:
    pictures = evaluation_pictures(evaluate(predictor, validation(self_made)))
    assert list(pictures) == ["worst_and_best"]
    drawn = np.asarray(PillowImage.open(io.BytesIO(pictures["worst_and_best"])))
    assert drawn.shape[0] > 100
    assert drawn.std() > 0


# The card


def test_the_card_states_scores_data_and_limits() -> None:
    card = model_card(
        SPEC,
        {"ap50": 0.81234, "pq": 0.7},
        data={"train": "d1", "val": "d2"},
        intervals={"ap50": Interval(0.74, 0.88, 4)},
    )
    assert "| score | all |" in card
    assert "| ap50 | 0.812 (0.740 to 0.880?) |" in card
    assert "| pq | 0.700 (?) |" in card
    assert "95 % intervals over 4 images, movies or groups; ?: fewer than 6" in card
    assert "These images were used to choose epoch, decoding and calibration" in card
    assert "- train: d1" in card
    assert "- recipe: abc" in card
    assert "- widths: `[4, 8]`" in card
    assert "medical" in card


def test_the_card_stands_strange_values() -> None:
    spec = SPEC.model_copy(update={"provenance": {"note": "a `b` | c\nd", "size": 1.5, "nothing": None}})
    card = model_card(spec, {}, data={})
    assert "None were recorded." in card
    assert "- note: `a 'b' | c d`" in card
    assert "none recorded" in card


# The commands


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(words)
    return int(caught.value.code or 0)


@pytest.fixture
def registered(bundle: Bundle, registry_home: Path) -> Registry:
    registry = Registry.open(load_settings())
    for metric in (0.5, 0.6):
        registry.register(bundle.folder, "cells", metrics={"ap50": metric})
    return registry


def test_evaluate_prints_the_agreed_object(
    registered: Registry, self_made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--where", "kind=r*", "--by", "kind", "--json", "--device", "cpu", "--precision", "fp32"]
    assert run("evaluate", "cells@candidate", str(self_made), *options) == 0
    answer = json.loads(capsys.readouterr().out)
    known = ["model", "dataset", "split", "metrics", "intervals", "unit", "units", "items", "seconds", "warnings"]
    assert list(answer) == [*known, "groups", "group_intervals", "notes"]
    assert (answer["unit"], answer["units"]) == ("image", 2)
    assert answer["intervals"]["ap50"] == {"low": 1.0, "high": 1.0, "units": 2}
    assert "the scores are based on 2 images; with fewer than 6, their variation is unknown" in answer["notes"][0]
    assert answer["model"] == "cells/2"
    assert answer["dataset"] == str(self_made)
    assert answer["split"] == "val"
    assert answer["metrics"]["ap50"] == 1.0
    assert answer["items"] == 2
    assert answer["groups"] == {"right": answer["metrics"]}


def test_evaluate_takes_a_bundle_folder_and_prints_a_table(
    bundle: Bundle, self_made: Path, cytoray_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(bundle.folder), str(self_made), "--split", "train", "--by", "kind"]
    assert run(*words, "--precision", "fp32") == 0
    printed = capsys.readouterr().out
    assert "ap50" in printed
    assert "right" in printed
    assert not cytoray_home.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["cells/9"], "model"),
        (["celts"], "model"),
        (["cells", "--split", "test"], "split"),
        (["cells", "--where", "kind"], "where"),
        (["cells", "--where", "stain=he"], "stain"),
        (["cells", "--by", "stain"], "by"),
        (["cells", "--column", "mask"], "column"),
    ],
)
def test_a_mistake_gets_status_2_and_names_the_field(
    registered: Registry, self_made: Path, capsys: pytest.CaptureFixture[str], words: list[str], field: str
) -> None:
    assert run("evaluate", words[0], str(self_made), *words[1:], "--json") == 2
    assert json.loads(capsys.readouterr().out)["field"] == field


# What a network without training was trained on is unknown, so it takes force.
FORCE = ("--force", "--reason", "better")


@pytest.mark.slow
def test_models_are_promoted_and_rolled_back(
    registered: Registry, self_made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*words: str) -> dict[str, object]:
        assert run("models", *words, "--json") == 0
        return dict(json.loads(capsys.readouterr().out))

    assert answer("promote", "cells/1", "--on", str(self_made), "--split", "val", *FORCE)["version"] == "1"
    promoted = answer("promote", "cells", *FORCE)
    assert (promoted["version"], promoted["alias"]) == ("2", "champion")
    assert answer("rollback", "cells")["version"] == "1"
    shown = answer("show", "cells@champion")
    assert shown["version"] == "1"
    assert shown["metrics"] == {"ap50": 0.5}
    history = shown["history"]
    assert isinstance(history, list)
    moves = [(move["before"], move["after"]) for move in history if move["alias"] == "champion"]
    assert moves == [(None, "1"), ("1", "2"), ("2", "1")]
    listed = answer("list")["models"]
    assert isinstance(listed, list)
    assert listed[0]["aliases"] == {"candidate": "2", "champion": "1"}
    assert [version["version"] for version in listed[0]["versions"]] == ["2", "1"]


@pytest.mark.slow
def test_people_get_tables(registered: Registry, self_made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", "promote", "cells", "--on", str(self_made), "--split", "val", *FORCE) == 0
    assert "cells@champion is now cells/2" in capsys.readouterr().out
    assert run("models", "list") == 0
    assert "cells/1" in capsys.readouterr().out
    assert run("models", "show", "cells") == 0
    shown = capsys.readouterr().out
    assert "ap50 0.600" in shown
    assert "promote" in shown


def test_an_empty_registry_says_so(registry_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", "list") == 0
    said = capsys.readouterr().out
    assert said.startswith("No models in sqlite:")
    assert said.endswith("mlflow.db yet. Train one: cytoray train RECIPE\n")
    assert run("models", "rollback", "cells") == 2


def test_a_stack_that_is_predicted_to_a_plane_is_scored_with_its_uncertainty(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    (tmp_path / "data" / "inputs").mkdir(parents=True)
    (tmp_path / "data" / "targets").mkdir()
    stack = image_from_array(noise.integers(0, 200, (3, 32, 40)).astype(np.uint8), "ZYX")
    write_image(tmp_path / "data" / "inputs" / "a.tif", stack)
    plane = image_from_array(noise.integers(0, 200, (32, 40)).astype(np.uint8), "YX")
    write_image(tmp_path / "data" / "targets" / "a.tif", plane)
    network = NetworkChoice(name="unet", arguments={"inputs": 3, "outputs": 2, "widths": [4, 8]})
    spec = BundleSpec(
        name="stain",
        task=TaskChoice(name="label_free", arguments={"uncertainty": True}),
        input=ModelInput(planes=3),
        network=network,
    )
    weights = build_network(network.name, network.arguments).state_dict()
    folder = tmp_path / "stain"
    stain = write_bundle(folder, spec, weights, test_input=np.zeros((3, 16, 16), np.float32), card="#\n")
    evaluation = evaluate(Predictor(stain), open_dataset(tmp_path / "data"))
    assert evaluation.items[0].prediction.answer.shape == (2, 32, 40)
    assert -1 <= evaluation.metrics["pearson"] <= 1

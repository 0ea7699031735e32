"""The report: on disk, in MLflow, by command; harmless whatever the data are called; never in the way of a model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import TrainingError
from cytoray_services.commands.root import main
from cytoray_services.registry import Registry
from cytoray_services.settings import load_settings
from cytoray_training.diagnosis import diagnose as diagnosing
from cytoray_training.diagnosis.command import find_run
from cytoray_training.diagnosis.diagnose import Diagnosis, conclude, diagnose, diagnosed_on_failure
from cytoray_training.diagnosis.facts import Failure
from cytoray_training.diagnosis.findings import Finding, find
from cytoray_training.diagnosis.reading import read_facts
from cytoray_training.diagnosis.report import Content, markdown, page

EVIL = "<script>alert(1)</script>](javascript:x)"


def run_folder(diagnosis: Diagnosis, home: Path) -> Path:
    """Return a copy of a run's folder below a home."""
    source = diagnosis.report.parent.parent
    return Path(shutil.copytree(source, home / "runs" / "tiny-1", ignore=shutil.ignore_patterns("checkpoint-*")))


@pytest.mark.slow
def test_the_report_has_its_pictures_beside_and_inside(healthy_segmentation: Diagnosis, tmp_path: Path) -> None:
    written = diagnose(healthy_segmentation.report.parent.parent, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("report.md", "report.html", "findings.json"),
        *("curves.png", "layers.png", "scores.png", "time.png"),
    }
    assert written.report.read_text(encoding="utf-8").count("data:image/png;base64,") == 4
    assert "![Progress of the training run" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_names_from_the_data_cannot_become_part_of_the_page(healthy_segmentation: Diagnosis) -> None:
    finding = Finding("disputed-labels", "note", f"{EVIL} is disputed", EVIL)
    content = Content(EVIL, healthy_segmentation.facts, [finding], {})
    assert "<script" not in page(content)
    assert "&lt;script&gt;" in page(content)
    assert "<script" not in markdown(content).replace("\\<", "")
    assert "](javascript" not in markdown(content).replace("\\]", "")


@pytest.mark.slow
def test_the_command_answers_with_findings_and_report(
    healthy_segmentation: Diagnosis, cytoray_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(healthy_segmentation, cytoray_home)
    (folder / "run.json").write_text(json.dumps({"run_id": "0123abcd", "finished": True}), encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["diagnose", "0123abcd", "--json", "--out", str(cytoray_home / "out")])
    assert caught.value.code == 0
    answer = json.loads(capsys.readouterr().out)
    assert [finding["name"] for finding in answer.pop("findings")] == ["too-few-examples"]
    assert answer == {"run_id": "0123abcd", "report": str(cytoray_home / "out" / "report.html")}


def test_a_run_without_facts_is_the_callers_mistake(cytoray_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cytoray_home / "empty").mkdir(parents=True)
    with pytest.raises(SystemExit) as caught:
        main(["diagnose", str(cytoray_home / "empty"), "--json"])
    assert caught.value.code == 2
    assert json.loads(capsys.readouterr().out)["error"] == "MissingFileError"


@pytest.mark.slow
def test_a_failed_training_is_diagnosed_before_its_error_goes_on(
    healthy_segmentation: Diagnosis, cytoray_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(healthy_segmentation, cytoray_home)
    shutil.rmtree(folder / "diagnosis")
    failure: dict[str, Any] = {
        "step": 96,
        "epoch": 8,
        "loss": 1.0,
        "gradient_norm": float("inf"),
        "what": "output",
        "layer": "stem.0",
    }
    with (folder / "progress.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"stage": "failure", **failure}) + "\n")
    registry = Registry.open(load_settings())
    with (
        pytest.raises(TrainingError) as caught,
        registry.start_run(experiment="tiny", name="tiny-1") as run,
        diagnosed_on_failure(folder, run),
    ):
        raise TrainingError("the gradient is inf", hint="lower it")
    report = folder / "diagnosis" / "report.html"
    assert caught.value.hint == f"lower it; see {report}"
    assert "not-finite" in capsys.readouterr().err
    assert run.read_text("diagnosis/report.md") == (report.parent / "report.md").read_text(encoding="utf-8")
    assert read_facts(folder).failure == Failure(**failure)
    (folder / "run.json").write_text(json.dumps({"run_id": run.run_id}), encoding="utf-8")
    assert find_run(run.run_id, load_settings()) == (run.run_id, folder)


def test_a_diagnosis_that_fails_is_reported_and_ends_nothing(
    healthy_segmentation: Diagnosis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(diagnosing, "record_ending", broken)
    conclude(*[None] * 5)  # type: ignore[arg-type] # nothing is touched before what is broken
    said = capsys.readouterr().err
    assert "the diagnosis failed; the training run is not affected" in said
    assert "of all things" in said


def test_findings_are_sorted_by_severity_and_the_same_each_time(healthy_segmentation: Diagnosis) -> None:
    failure = Failure(3, 0, float("nan"), float("nan"), "output", "head")
    facts = replace(healthy_segmentation.facts, agreement=0.5, failure=failure)
    assert [finding.severity for finding in find(facts)] == ["error", "note", "note"]
    assert find(facts) == find(facts)

"""From the folder of a run to a report: read the facts, find, draw, write, print."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cytoray_analysis.errors import CytorayError, TrainingError
from cytoray_analysis.files import write_whole
from cytoray_analysis.predictor import Predictor
from cytoray_services.kinds.evaluated import Evaluation
from cytoray_services.registry import Run
from cytoray_training.diagnosis.ending import DISPUTED, record_ending
from cytoray_training.diagnosis.facts import FOLDER, Facts
from cytoray_training.diagnosis.findings import Finding, find
from cytoray_training.diagnosis.plots import draw
from cytoray_training.diagnosis.reading import read_facts
from cytoray_training.diagnosis.report import Content, markdown, page
from cytoray_training.plan.plan import Plan

MARKDOWN, PAGE, LISTED = "report.md", "report.html", "findings.json"


@dataclass(frozen=True)
class Diagnosis:
    """Findings about a training run, and the path of the report.

    Attributes
    ----------
    report
        The page; the Markdown, the pictures and the findings as JSON are in the same folder.
    """

    facts: Facts
    findings: tuple[Finding, ...]
    report: Path


def diagnose(folder: Path, out: Path | None = None) -> Diagnosis:
    """Diagnose the training run in a folder from its recorded facts, and write the report.

    Parameters
    ----------
    folder
        Of the run.
    out
        Where the report goes; ``folder/diagnosis`` by default.

    Raises
    ------
    MissingFileError, TrainingError
        See :func:`cytoray_training.diagnosis.reading.read_facts`.
    """
    facts = read_facts(folder)
    findings = find(facts)
    pictures = draw(facts)
    disputed = folder / FOLDER / DISPUTED
    if disputed.is_file() and facts.ending is not None and facts.ending.disputes:
        pictures[disputed.stem] = disputed.read_bytes()
    content = Content(f"Diagnosis of {folder.name}", facts, findings, pictures)
    out = out or folder / FOLDER
    for name, picture in pictures.items():
        write_whole(out / f"{name}.png", picture)
    write_whole(out / MARKDOWN, markdown(content))
    write_whole(out / LISTED, json.dumps([asdict(finding) for finding in findings], indent=1))
    write_whole(out / PAGE, page(content))
    return Diagnosis(facts, findings, out / PAGE)


def conclude(plan: Plan, predictor: Predictor, evaluation: Evaluation, folder: Path, run: Run) -> None:
    """Diagnose a training run that succeeded, store the report in its run, and print the findings.

    A diagnosis never changes or ends a training run; a failed one is reported on standard error.
    """
    with _never_in_the_way():
        record_ending(plan, predictor, evaluation, folder)
        tell(record(folder, run))


@contextmanager
def diagnosed_on_failure(folder: Path, run: Run) -> Iterator[None]:
    """Diagnose a training run that fails inside this context, and name the report in the hint of its error."""
    try:
        yield
    except TrainingError as error:
        with _never_in_the_way():
            tell(record(folder, run))
        if (folder / FOLDER / PAGE).is_file():
            hint = f"see {folder / FOLDER / PAGE}"
            raise type(error)(
                error.message, field=error.field, hint=f"{error.hint}; {hint}" if error.hint else hint
            ) from error
        raise


def record(folder: Path, run: Run) -> Diagnosis:
    """Diagnose the training run in a folder, and copy the report into its MLflow run under ``diagnosis/``.

    Raises
    ------
    PlatformError
        MLflow does not answer; the report is on disk.
    """
    diagnosis = diagnose(folder)
    for path in sorted(diagnosis.report.parent.iterdir()):
        if path.suffix in (".md", ".html", ".json", ".png"):
            run.log_file(path, FOLDER)
    run.set_tags({"findings": ", ".join(finding.name for finding in diagnosis.findings) or "none"})
    return diagnosis


def tell(diagnosis: Diagnosis) -> None:
    """Print one line for each finding on standard error."""
    for finding in diagnosis.findings:
        print(f"{finding.severity}: {finding.name}: {finding.evidence}. {finding.remedy}", file=sys.stderr)
    print(f"diagnosis: {diagnosis.report}", file=sys.stderr)


@contextmanager
def _never_in_the_way() -> Iterator[None]:
    """Report a failed diagnosis on standard error, and keep the model."""
    try:
        yield
    except CytorayError as error:
        print(f"warning: the diagnosis failed: {error.message}; the training run is not affected", file=sys.stderr)
    except Exception as error:  # noqa: BLE001 - a failed diagnosis must not cost a trained model
        report = "".join(traceback.format_exception(error))
        print(f"warning: the diagnosis failed; the training run is not affected\n{report}", file=sys.stderr)

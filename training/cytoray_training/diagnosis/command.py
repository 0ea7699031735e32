"""``cytoray diagnose``: why a training run went as it did."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.settings import Settings


def diagnose(
    run: Annotated[str, typer.Argument(help="A run's identifier, a model such as NAME@ALIAS, or a run's folder.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to write the report; the run's folder diagnosis by default."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Report what went wrong in a training run, with evidence and remedy.

    Example: cytoray diagnose nuclei@candidate
    """
    from cytoray_services.settings import load_settings
    from cytoray_training.diagnosis.diagnose import diagnose as write_report
    from cytoray_training.diagnosis.report import NOTHING

    run_id, folder = find_run(run, load_settings())
    diagnosis = write_report(folder, out)
    if json:
        print_json({"run_id": run_id, "findings": diagnosis.findings, "report": diagnosis.report})
        return
    for finding in diagnosis.findings:
        typer.echo(f"{finding.severity}: {finding.name}\n  evidence: {finding.evidence}\n  remedy:   {finding.remedy}")
    typer.echo(f"{'' if diagnosis.findings else NOTHING + chr(10)}report: {diagnosis.report}")


def find_run(text: str, settings: Settings) -> tuple[str | None, Path]:
    """Find the folder of a run by its own path, the identifier of its MLflow run, or a model that it produced.

    Returns
    -------
    tuple
        Identifier of the MLflow run, None where there is none; and the folder.

    Raises
    ------
    ModelNotFoundError, RequestError
        The registry has no such model; the version comes from no training run.
    MissingFileError
        The run's folder is not below this installation's state folder.
    """
    folder = Path(text).expanduser()
    if folder.is_dir():
        return _run_id(folder), folder
    known = {_run_id(record.parent): record.parent for record in settings.home.glob("*/**/run.json")}
    if text in known:
        return text, known[text]
    if "/" in text and not text.rpartition("/")[2].isdigit():
        raise MissingFileError(f"found no folder {text}", field="run")
    from cytoray_services.registry import Registry

    version = Registry.open(settings).resolve(text)
    if version.run_id is None:
        raise RequestError(f"{version.reference} comes from no training run", field="run")
    if version.run_id not in known:
        raise MissingFileError(
            f"the run {version.run_id} of {version.reference} has no folder below {settings.home}",
            field="run",
            hint="its report is in MLflow under diagnosis/; or set CYTORAY_HOME to the state folder of that run",
        )
    return version.run_id, known[version.run_id]


def _run_id(folder: Path) -> str | None:
    record = folder / "run.json"
    if not record.is_file():
        return None
    found = json_format.loads(record.read_text(encoding="utf-8")).get("run_id")
    return None if found is None else str(found)

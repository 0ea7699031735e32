"""The facts of a training run on disk.

During the run, worker 0 appends lines to the run's progress file, each an object with a ``stage``: ``start``,
``warning``, ``steps``, ``probe``, ``validation``, ``unscored``, ``spent``, ``ended``, ``failure``.
``diagnosis/facts.json`` is written at the end. A run that continued after an interruption contains some steps twice;
the later ones count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import MissingFileError, TrainingError
from cytoray_analysis.files import write_whole
from cytoray_services.statistics.intervals import Interval
from cytoray_training.diagnosis.facts import (
    FOLDER,
    Cells,
    Dispute,
    EndedBy,
    Ending,
    Facts,
    Failure,
    ImageScore,
    Layer,
    Probe,
    Spent,
    Steps,
    Twin,
    Unscored,
    Validation,
)
from cytoray_training.run.reporter import PROGRESS

ENDING = "facts.json"
FORMAT = 1


def write_ending(folder: Path, ending: Ending) -> Path:
    """Write the final measurements into a run's folder, atomically."""
    return write_whole(folder / FOLDER / ENDING, json.dumps({"format": FORMAT, **asdict(ending)}))


def read_facts(folder: Path) -> Facts:
    """Read the recorded facts of the training run in a folder.

    Raises
    ------
    MissingFileError
        The folder has no training run, or one of an earlier version without facts.
    TrainingError
        A file is damaged.
    """
    path = folder / PROGRESS
    if not path.is_file():
        raise MissingFileError(f"expected the folder of a training run, found no {PROGRESS} in {folder}", field="run")
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        facts = _from_lines(lines)
        ending = folder / FOLDER / ENDING
        return facts if not ending.is_file() else _with_ending(facts, json.loads(ending.read_text(encoding="utf-8")))
    except StopIteration:
        raise MissingFileError(
            f"expected recorded facts of the training run in {folder}, found none: it never started, or an older "
            "version ran it",
            field="run",
            hint="train again with this version",
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"the facts in {folder} cannot be read: {error}", field="run") from error


def _from_lines(lines: Iterable[Mapping[str, Any]]) -> Facts:
    by_stage: dict[str, list[dict[str, Any]]] = {}
    ended_by: EndedBy | None = None
    for line in lines:
        if line["stage"] in ("ended", "steps"):  # further steps follow: it had not ended
            ended_by = line.get("by")
        by_stage.setdefault(line["stage"], []).append({key: value for key, value in line.items() if key != "stage"})
    start = next(reversed(by_stage.get("start", [])))
    return Facts(
        recipe=start["recipe"],
        metric=start["metric"],
        images=start["images"],
        agreement=start["agreement"],
        norm_crops=start.get("norm_crops"),  # earlier versions did not write it
        steps=_steps(by_stage.get("steps", [])),
        probes=tuple(_probe(line) for line in _last_of_each(by_stage.get("probe", []), "step")),
        validations=tuple(Validation(**line) for line in _last_of_each(by_stage.get("validation", []), "epoch")),
        unscored=tuple(
            Unscored(line["epoch"], line["why"], tuple(line["numbers"]))
            for line in _last_of_each(by_stage.get("unscored", []), "epoch")
        ),
        spent=tuple(Spent(**line) for line in _last_of_each(by_stage.get("spent", []), "epoch")),
        failure=_failure(by_stage.get("failure", [])),
        ended_by=ended_by,
    )


def _steps(lines: Iterable[Mapping[str, Any]]) -> Steps:
    seen: dict[int, tuple[float, float, float]] = {}
    for line in lines:
        rows = zip(line["loss"], line["gradient_norm"], line["learning_rate"], strict=True)
        seen |= {line["first"] + place: row for place, row in enumerate(rows)}
    order = sorted(seen)
    return Steps(tuple(order), *(tuple(seen[step][column] for step in order) for column in range(3)))


def _probe(line: Mapping[str, Any]) -> Probe:
    return Probe(line["step"], line["learning_rate"], line["gain"], tuple(Layer(**layer) for layer in line["layers"]))


def _failure(lines: list[dict[str, Any]]) -> Failure | None:
    """Take the last failure; of several workers, one that located it."""
    if not lines:
        return None
    together = [line for line in lines if line["step"] == lines[-1]["step"]]
    return Failure(**min(together, key=lambda line: line["layer"] is None))


def _last_of_each(lines: Iterable[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    last = {line[key]: line for line in lines}
    return [last[number] for number in sorted(last)]


def _with_ending(facts: Facts, document: dict[str, Any]) -> Facts:
    if document.pop("format") != FORMAT:
        raise ValueError("another format")
    ending = Ending(
        metric=document["metric"],
        images=tuple(ImageScore(**image) for image in document["images"]),
        classes=tuple(document["classes"]),
        counts={split: tuple(counts) for split, counts in document["counts"].items()},
        cells={
            split: Cells(**{key: tuple(value) for key, value in cells.items()})
            for split, cells in document["cells"].items()
        },
        disputes=tuple(Dispute(**one | {"place": tuple(one["place"])}) for one in document["disputes"]),
        judged=document["judged"],
        features={
            split: {name: tuple(values) for name, values in features.items()}
            for split, features in document["features"].items()
        },
        twins=tuple(Twin(**twin) for twin in document["twins"]),
        unit=document.get("unit", "image"),  # earlier releases recorded neither this nor intervals
        intervals={name: Interval(**one) for name, one in document.get("intervals", {}).items()},
    )
    return replace(facts, ending=ending)

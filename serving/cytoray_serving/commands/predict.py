"""``cytoray predict``: answers all inputs, also if some fail, and reports the result of each."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, ConfigDict

from cytoray_analysis.answer_warnings import AnswerWarning, Warnings
from cytoray_analysis.errors import CytorayError, InputError
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_services.commands.output import print_json
from cytoray_serving.predict.answer_record import AnswerRecord
from cytoray_serving.predict.answer_writer import AnswerWriter
from cytoray_serving.predict.failures import as_error
from cytoray_serving.predict.given_objects import GivenObjects, InputObjects
from cytoray_serving.predict.input_files import InputFile, Inputs, LeftOut, choose_in, find_inputs, left_out_lines
from cytoray_serving.predict.output_files import (
    Existing,
    Planned,
    Skipped,
    make_folder,
    name_outputs,
    plan_outputs,
    require_not_given,
)
from cytoray_serving.predict.path_matching import absolute
from cytoray_serving.predict.predicting import Answerer, Done
from cytoray_serving.schema import ChannelChosen, WarningRow


class Output(BaseModel):
    """The result of one input: outputs, an error, or both if there are several formats.

    Attributes
    ----------
    channels
        Names and numbers of the chosen channels; None if none were chosen.
    output, files
        The first file or folder that was written, and all of them by format.
    kept
        Answers that were edited by hand and renamed because of ``--overwrite``.
    """

    model_config = ConfigDict(frozen=True)

    input: str
    output: str | None = None
    files: dict[str, str] | None = None
    objects: int | None = None
    seconds: float
    warnings: list[WarningRow] = []
    channels: list[ChannelChosen] | None = None
    kept: list[str] | None = None
    error: dict[str, Any] | None = None


@dataclass
class Report:
    """The results so far.

    Attributes
    ----------
    quiet
        Whether answers are not printed because a program reads standard output.
    alone
        Whether there is one input; its error is then the error of the command.
    """

    quiet: bool
    alone: bool
    outputs: list[Output] = field(default_factory=list)
    failures: list[CytorayError] = field(default_factory=list)
    _said: set[AnswerWarning] = field(default_factory=set)
    _counted: Counter[str] = field(default_factory=Counter)

    def answered(self, source: Path, writer: AnswerWriter, done: Done, seconds: float) -> None:
        """Count and print an answer."""
        self._warn(source, done.warnings)
        error = writer.errors[0] if writer.errors else None
        files = {form: str(path) for form, path in writer.files.items()}
        self.outputs.append(
            Output(
                input=str(source),
                output=next(iter(files.values()), None),
                files=files or None,
                objects=done.objects if files else None,
                seconds=seconds,
                warnings=[WarningRow(code=one.code, sentence=one.sentence) for one in done.warnings],
                channels=list(done.channels) or None,
                kept=[str(path) for path in writer.kept] or None,
                error=None if error is None else error.describe(),
            )
        )
        for path in writer.kept:
            _say(f"{source}: the existing answer was edited, so it is kept as {path}")
        if files and not self.quiet:
            counted = f"{done.objects} {'object' if done.objects == 1 else 'objects'}"
            print(f"{source} → {', '.join(files.values())}: {counted}, {seconds:.2f} s")
        if error is not None:
            self._fail(source, error, shown=bool(files))

    def failed(self, source: Path, error: CytorayError, seconds: float) -> None:
        """Count and print an input that was not answered."""
        self.outputs.append(Output(input=str(source), seconds=seconds, error=error.describe()))
        self._fail(source, error)

    def warning_lines(self) -> list[str]:
        """Return the number of answers with each kind of warning."""
        return [
            f"warning {code}: {number} {'answer' if number == 1 else 'answers'}"
            for code, number in sorted(self._counted.items())
        ]

    def warning_counts(self) -> dict[str, int]:
        """Return the same by code."""
        return dict(sorted(self._counted.items()))

    def _fail(self, source: Path, error: CytorayError, *, shown: bool = False) -> None:
        self.failures.append(error)
        if shown or not self.alone:
            hint = "" if error.hint is None else f" ({error.hint})"
            _say(f"{source}: {error.message}{hint}")

    def _warn(self, source: Path, warnings: Warnings) -> None:
        self._counted.update({warning.code for warning in warnings})
        for warning in warnings:
            if warning not in self._said:
                self._said.add(warning)
                _say(f"{source}: warning: {warning}")


def predict_inputs(
    answerer: Answerer,
    named: Sequence[Path],
    out: Path,
    given: GivenObjects,
    *,
    model: str,
    selection: Selection = EVERYTHING,
    existing: Existing = "refuse",
    recursive: bool = False,
    json: bool = False,
) -> None:
    """Answer all inputs and report the results.

    Parameters
    ----------
    answerer
        The predictor or service that answers.
    named
        Files, folders and patterns.
    out
        Folder for the answers.
    given
        The given masks, boxes or segmentation model.
    model
        The model as the caller named it.
    selection
        The part of every input to answer for.
    existing
        What to do with existing answers.
    recursive
        Whether subfolders are searched.
    json
        Whether a program reads standard output.

    Raises
    ------
    CytorayError
        Before any work: an answer exists already, or masks or boxes are missing. Or the error of the only input.
    typer.Exit
        Some inputs failed: status 2, or 1 if not all errors are the caller's.
    """
    record = AnswerRecord(out)
    axes, not_inputs = answerer.spatial_axes, _not_inputs(out, given, record)
    inputs = find_inputs(named, answerer.kind, spatial_axes=axes, recursive=recursive, not_inputs=not_inputs)
    inputs = replace(inputs, files=choose_in(inputs.files, selection))
    objects = given.of(list(dict.fromkeys(one.path for one in inputs.files)), axes)
    planned, skipped = _plan(answerer, inputs, out, objects, record, existing)
    make_folder(out)
    report = Report(quiet=json, alone=len(inputs.files) == 1)
    for one in planned:
        _answer(one, answerer, objects, record, report, overwrite=existing == "overwrite")
    complete = _summarise(inputs, skipped, planned, report)
    if report.failures and report.alone and report.outputs[0].files is None:
        raise report.failures[0]
    if json:
        print_json(
            complete | {"model": model, "outputs": [one.model_dump(exclude_none=True) for one in report.outputs]}
        )
    if report.failures:
        raise typer.Exit(2 if all(isinstance(error, InputError) for error in report.failures) else 1)


def _not_inputs(out: Path, given: GivenObjects, record: AnswerRecord) -> dict[Path, str]:
    """Return the files in folders of images that are not inputs, with the reason."""
    reasons = {absolute(path): "an answer written by predict" for path in record.paths()}
    reasons[absolute(record.path)] = "the record of the answers"
    reasons[absolute(out)] = "the folder of the answers"
    if given.masks is not None:
        reasons[absolute(given.masks)] = "named by --masks"
    if given.boxes is not None:
        reasons[absolute(given.boxes)] = "named by --boxes"
    return reasons


def _plan(
    answerer: Answerer,
    inputs: Inputs,
    out: Path,
    objects: InputObjects,
    record: AnswerRecord,
    existing: Existing,
) -> tuple[list[Planned], list[Skipped]]:
    stems = name_outputs(inputs.files, out, answerer.suffixes)
    files = list(zip(inputs.files, stems, strict=True))
    going = [
        (source.path, path)
        for source, stem in files
        for form in answerer.formats
        for _, path in answerer.targets(stem, form)
    ]
    require_not_given(going, [*(one.path for one in inputs.files), *objects.files()])

    def options(source: InputFile) -> dict[str, Any]:
        return answerer.options_of(source, objects)

    return plan_outputs(files, answerer.targets, answerer.formats, answerer.digest, options, record, existing)


def _answer(
    planned: Planned,
    answerer: Answerer,
    objects: InputObjects,
    record: AnswerRecord,
    report: Report,
    *,
    overwrite: bool,
) -> None:
    if not planned.formats:
        return
    start, source = time.perf_counter(), planned.source.path
    try:
        if planned.source.error is not None:
            raise planned.source.error
        writer = AnswerWriter(planned, record, answerer.options_of(planned.source, objects), overwrite=overwrite)
        done = answerer.answer(planned.source, objects, planned.formats, writer)
    except Exception as error:  # noqa: BLE001 - one bad input does not stop the others
        report.failed(source, as_error(error, source), time.perf_counter() - start)
        return
    report.answered(source, writer, done, time.perf_counter() - start)


def _summarise(
    inputs: Inputs, skipped: Sequence[Skipped], planned: Sequence[Planned], report: Report
) -> dict[str, Any]:
    """Print a summary on standard error, and return the same for programs."""
    of, answered = len(inputs.files), sum(one.error is None for one in report.outputs)
    there = sum(not one.formats for one in planned)
    for one in skipped:
        _say(f"{one.input}: skipped, {one.output} exists ({one.reason})")
    for line in (*left_out_lines(inputs.left_out), *report.warning_lines()):
        _say(line)
    parts = [f"{answered} of {of} {'input' if of == 1 else 'inputs'} answered"]
    parts += [f"{there} skipped, answered before"] if there else []
    parts += [f"{len(report.failures)} failed"] if report.failures else []
    parts += [f"{len(inputs.left_out)} left out"] if inputs.left_out else []
    _say(", ".join(parts))
    return {
        "answered": answered,
        "of": of,
        "skipped": [_described(one) for one in skipped],
        "left_out": [_described(one) for one in inputs.left_out],
        "warnings": report.warning_counts(),
    }


def _described(one: Skipped | LeftOut) -> dict[str, str]:
    return {name: str(value) for name, value in vars(one).items()}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

"""A diagnosis as Markdown and as one self-contained HTML page.

The page is built as a tree of elements, with texts escaped on writing, because names of files and classes come from the
data.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

from cytoray_analysis.tasks.calibration import binned_calibration_error, expected_calibration_error_when_calibrated
from cytoray_analysis.tasks.metrics import metric_named
from cytoray_services.statistics.intervals import few_units
from cytoray_training.diagnosis.facts import Cells, EndedBy, Facts
from cytoray_training.diagnosis.findings import Finding
from cytoray_training.diagnosis.findings.intervals import score_interval, unit_count

CAPTIONS = {
    "curves": "Progress of the training run: loss and gradient norm of every step, scores of both splits",
    "layers": "Each layer over time, first layer on top",
    "scores": "Scores of single images with the best weights",
    "time": "How the time was spent; batches are prepared in parallel with the network",
    "disputed_labels": "Labels that the model disputes",
}
NOTHING = "No problems found."
_BINS = 15  # of the calibration error, as the task computes it
_ENDED: dict[EndedBy, str] = {
    "epochs": "training.epochs",
    "minutes": "training.minutes",
    "early stopping": "training.early_stopping",
    "stop": "a signal or a stop file",
}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
section { border-left: 5px solid #888; padding: .2rem 1rem; margin: 1rem 0; background: #f7f7f7; }
section.error { border-color: #c0392b; } section.warning { border-color: #e6a100; }
section.note { border-color: #1b6ca8; }
section h3 { margin: .4rem 0; font-size: 1rem; }
section p { margin: .3rem 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; }
figure { margin: 1.5rem 0; } figcaption { color: #555; } img { max-width: 100%; height: auto; }
"""


@dataclass(frozen=True)
class Content:
    """The content of a report.

    Attributes
    ----------
    title
        Names the run.
    facts, findings
        Recorded facts, and the findings.
    pictures
        PNG files by name.
    """

    title: str
    facts: Facts
    findings: Sequence[Finding]
    pictures: Mapping[str, bytes]


def summary(facts: Facts) -> list[tuple[str, str]]:
    """Return the figures above the findings, as pairs of name and value."""
    rows = [("task", str(facts.setting("model.task.name"))), ("network", str(facts.setting("model.network.name")))]
    rows += [(f"images in {split}", str(count)) for split, count in facts.images.items()]
    rows.append(("optimizer steps", str(len(facts.steps.step))))
    if facts.validations:
        best = max((one.score for one in facts.validations), key=metric_named(facts.metric).goodness)
        rows.append((f"best {facts.metric} during training", f"{best:.3f}"))
    interval = score_interval(facts.ending) if facts.ending is not None else None
    if facts.ending is not None and interval is not None:
        few = few_units(unit_count(facts.ending), facts.ending.unit)
        doubt = f" ({few})" if few else ""
        rows.append((f"{facts.metric}, 95 % interval", f"{interval[0]:.3f} to {interval[1]:.3f}{doubt}"))
    cells = facts.ending.cells.get("val", Cells()) if facts.ending is not None else Cells()
    if cells.truth:
        sure, right = np.array(cells.probability), np.array(cells.truth) == np.array(cells.predicted)
        error = binned_calibration_error(sure, right, _BINS)
        rows.append(("ece, out of fold", expected_calibration_error_when_calibrated(sure, _BINS).beside(error)))
    if facts.agreement is not None:
        rows.append(("annotator agreement", f"{facts.agreement:.3f}"))
    if facts.ended_by is not None:
        rows.append(("ended by", _ENDED[facts.ended_by]))
    if facts.failure is not None:
        rows.append(("ended", f"in step {facts.failure.step}, not finite"))
    return rows


def markdown(content: Content) -> str:
    """Write the report as Markdown; figures are linked by name."""
    lines = [f"# {_plain(content.title)}", ""]
    lines += [
        "| | |",
        "|---|---|",
        *(f"| {_plain(name)} | {_plain(value)} |" for name, value in summary(content.facts)),
    ]
    lines += ["", "## Findings", ""]
    for finding in content.findings:
        lines += [
            f"### {finding.name} ({finding.severity})",
            "",
            f"- Evidence: {_plain(finding.evidence)}",
            f"- Remedy: {_plain(finding.remedy)}",
            "",
        ]
    if not content.findings:
        lines += [NOTHING, ""]
    for name in content.pictures:
        lines += [f"![{CAPTIONS[name]}]({name}.png)", "", f"*{CAPTIONS[name]}*", ""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Escape the characters of a text that have a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", text).replace("\n", " ")


def page(content: Content) -> str:
    """Write the report as one HTML page with its pictures inside."""
    root = ElementTree.Element("html", lang="en")
    head = ElementTree.SubElement(root, "head")
    ElementTree.SubElement(head, "meta", charset="utf-8")
    ElementTree.SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    _text(head, "title", content.title)
    _text(head, "style", _STYLE)
    body = ElementTree.SubElement(root, "body")
    _text(body, "h1", content.title)
    table = ElementTree.SubElement(body, "table")
    for name, value in summary(content.facts):
        row = ElementTree.SubElement(table, "tr")
        _text(row, "th", name)
        _text(row, "td", value)
    _text(body, "h2", "Findings")
    for finding in content.findings:
        section = ElementTree.SubElement(body, "section", {"class": finding.severity})
        _text(section, "h3", f"{finding.name} ({finding.severity})")
        _text(section, "p", f"Evidence: {finding.evidence}")
        _text(section, "p", f"Remedy: {finding.remedy}")
    if not content.findings:
        _text(body, "p", NOTHING)
    for name, png in content.pictures.items():
        figure = ElementTree.SubElement(body, "figure")
        source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        ElementTree.SubElement(figure, "img", src=source, alt=CAPTIONS[name])
        _text(figure, "figcaption", CAPTIONS[name])
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html")


def _text(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text

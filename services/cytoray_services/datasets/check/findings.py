"""What the check of a data set passes around: findings, facts about single items, and both for a whole set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import TaskChoice
from cytoray_analysis.mask_fit import MaskFit
from cytoray_analysis.registration import Shift
from cytoray_services.datasets.check.looks import Look
from cytoray_services.datasets.dataset import Dataset, Item

Severity = Literal["error", "warning", "note"]
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
# Items that share image and truth, as the cells of one field do, are examined once.
Files = tuple[Path, Path | None]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set, or worth knowing about it.

    Parameters
    ----------
    severity
        ``error`` ruins a training; ``warning`` is worth a look; ``note`` is worth knowing.
    file
        The file, relative to the data set; ``.`` for the data set itself.
    problem
        What was expected and what came.
    remedy
        What to do.
    code
        A name for programs; see the table of :mod:`cytoray_services.datasets.check`.
    """

    severity: Severity
    file: str
    problem: str
    remedy: str
    code: str


@dataclass(frozen=True)
class Facts:
    """What was learnt about one image and its truth by reading both; empty where that failed.

    Parameters
    ----------
    findings
        What is wrong with these two files alone.
    axes, channels, shape
        Of the image (of a movie: of each frame); ``shape`` has the spatial axes only.
    digest
        A hash of the image's pixels, whatever the file's format.
    detail
        Fine structure of the image, by which copies of another bit depth are found; None where there is none.
    fit
        How a mask lies on its image; None where that cannot be told.
    classes
        Pixels of each class of a mask, by index.
    values
        Numbers that a mask of classes holds, 255 among them.
    look, truth_look
        What the image and the file of its truth look like; None where they could not be read.
    truth_digest
        A hash of the truth's pixels, empty where it holds nothing.
    target_channels
        Of a target image.
    shift
        Of a target image against its input.
    turn
        In words, what must be done to a target image to make it lie on its input; empty where it does.
    copied
        Whether a target image is its input, but for brightness and contrast.
    tracks, divisions
        Counts of a lineage.
    """

    findings: tuple[Finding, ...] = ()
    axes: str = ""
    channels: int = 0
    shape: tuple[int, ...] = ()
    digest: str = ""
    target_channels: int = 0
    shift: Shift | None = None
    turn: str = ""
    copied: bool = False
    tracks: int = 0
    divisions: int = 0
    detail: NDArray[np.float16] | None = field(default=None, compare=False)
    fit: MaskFit | None = None
    classes: Mapping[int, int] = field(default_factory=dict)
    values: tuple[int, ...] = ()
    look: Look | None = None
    truth_look: Look | None = None
    truth_digest: str = ""

    @property
    def spatial_axes(self) -> str:
        """The axes without channels."""
        return self.axes.replace("C", "")


@dataclass(frozen=True)
class Checked:
    """A data set, what was learnt about its files, and what a training would ask of it.

    Parameters
    ----------
    dataset
        As opened.
    facts
        By image and truth; see :func:`files_of`.
    axes
        Spatial axes that the model takes; ``None`` for those of most images.
    channels
        How many channels the model takes; ``None`` for what most images have.
    grey_as_rgb
        Whether grey images stand in for colour ones.
    required_splits
        Splits that must have items.
    task
        What is to be learnt; ``None`` where that is not said.
    """

    dataset: Dataset
    facts: Mapping[Files, Facts]
    axes: str | None = None
    channels: int | None = None
    grey_as_rgb: bool = True
    required_splits: tuple[str, ...] = ()
    task: TaskChoice | None = None

    def of(self, item: Item) -> Facts:
        """Return what was learnt about an item."""
        return self.facts[files_of(item)]

    def name(self, path: Path) -> str:
        """Return a path as findings show it."""
        return name_in(self.dataset, path)


def files_of(item: Item) -> Files:
    """Return what identifies the files of an item."""
    return item.image, item.truth


def name_in(dataset: Dataset, path: Path) -> str:
    """Return a path relative to the data set where it lies inside."""
    return path.relative_to(dataset.root).as_posix() if path.is_relative_to(dataset.root) else str(path)


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by severity, then by file."""
    return sorted(findings, key=lambda finding: (_ORDER[finding.severity], finding.file, finding.code))


def shorten(names: Sequence[object], most: int = 5) -> str:
    """List a few of many names: ``1, 2, 3 …``."""
    return ", ".join(str(name) for name in names[:most]) + (" …" if len(names) > most else "")

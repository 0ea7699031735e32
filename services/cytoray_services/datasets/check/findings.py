"""The data of the check: findings, facts about single items, and both for a data set."""

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
_SHOWN = 5  # number of names to show
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
# Items that share image and truth, as the cells of one field do, are examined once.
Files = tuple[Path, Path | None]


@dataclass(frozen=True)
class Finding:
    """One problem of a data set, or a note about it.

    Parameters
    ----------
    severity
        ``error`` would damage a training run; ``warning`` should be checked; ``note`` is information.
    file
        The file, relative to the data set; ``.`` for the data set itself.
    problem
        What was expected and what was found.
    remedy
        What to do.
    code
        Identifier; see the table of :mod:`cytoray_services.datasets.check`.
    """

    severity: Severity
    file: str
    problem: str
    remedy: str
    code: str


@dataclass(frozen=True)
class Facts:
    """Facts about one image and its truth; empty if they could not be read.

    Parameters
    ----------
    findings
        Problems of these two files.
    axes, channels, shape
        Of the image (of a movie: of each frame); ``shape`` has the spatial axes only.
    digest
        A hash of the pixels of the image, independent of the file format.
    detail
        Fine structure of the image, to find copies with another bit depth; None without any.
    fit
        The fit of a mask and its image; None if unknown.
    classes
        Pixels of each class of a mask, by index.
    values
        Numbers in a mask of classes, including 255.
    look, truth_look
        Statistics of the image and of the file of its truth; None if they could not be read.
    truth_digest
        A hash of the pixels of the truth; empty for an empty truth.
    known
        The share of the pixels of a mask that are known.
    target_channels
        Of a target image.
    shift
        Of a target image against its input.
    turn
        Text of the transformation that makes a target image fit its input; empty if it fits.
    copied
        Whether a target image equals its input except for brightness and contrast.
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
    known: float = 1.0

    @property
    def spatial_axes(self) -> str:
        """The axes without channels."""
        return self.axes.replace("C", "")


@dataclass(frozen=True)
class Checked:
    """A data set, the facts about its files, and the requirements of training.

    Parameters
    ----------
    dataset
        As opened.
    facts
        By image and truth; see :func:`files_of`.
    axes
        Spatial axes of the model; ``None`` for those of most images.
    channels
        Number of channels of the model; ``None`` for that of most images.
    grey_as_rgb
        Whether grey images are used as colour images.
    required_splits
        Splits that must have items.
    task
        The task; ``None`` if unknown.
    """

    dataset: Dataset
    facts: Mapping[Files, Facts]
    axes: str | None = None
    channels: int | None = None
    grey_as_rgb: bool = True
    required_splits: tuple[str, ...] = ()
    task: TaskChoice | None = None

    def of(self, item: Item) -> Facts:
        """Return the facts about an item."""
        return self.facts[files_of(item)]

    def name(self, path: Path) -> str:
        """Return a path for findings."""
        return name_in(self.dataset, path)


def files_of(item: Item) -> Files:
    """Return the identity of the files of an item."""
    return item.image, item.truth


def name_in(dataset: Dataset, path: Path) -> str:
    """Return a path relative to the data set, if it is inside."""
    return path.relative_to(dataset.root).as_posix() if path.is_relative_to(dataset.root) else str(path)


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by severity, then by file."""
    return sorted(findings, key=lambda finding: (_ORDER[finding.severity], finding.file, finding.code))


def shorten(names: Sequence[object]) -> str:
    """List a few of many names: ``1, 2, 3 …``."""
    return ", ".join(str(name) for name in names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")

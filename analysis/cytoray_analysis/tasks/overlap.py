"""How true and predicted objects of one image overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from cytoray_analysis.numbering import dense_numbers


@dataclass(frozen=True)
class Overlap:
    """Objects of one image and how they overlap.

    Attributes
    ----------
    truths, answers
        Number of true and predicted objects.
    pairs
        (n, 2) ids of overlapping true and predicted objects.
    iou
        (n,) intersection over union of each pair.
    cover
        (n, 2) share of the true object, and of the predicted one, that each pair's overlap is.
    foreground
        Pixels in both foregrounds, in the true one, in the predicted one.
    """

    truths: int
    answers: int
    pairs: NDArray[np.int64]
    iou: NDArray[np.float64]
    cover: NDArray[np.float64]
    foreground: tuple[int, int, int]

    def matches(self, threshold: float) -> NDArray[np.int64]:
        """Return the rows of `pairs` that match one to one at an IoU of at least `threshold`, best first.

        Above 0.5 at most one partner is possible for each object; a tie at 0.5 goes to the first.
        """
        rows = np.argsort(-self.iou, kind="stable")
        rows = rows[self.iou[rows] >= threshold]
        _, first_truth = np.unique(self.pairs[rows, 0], return_index=True)
        rows = rows[np.sort(first_truth)]
        _, first_answer = np.unique(self.pairs[rows, 1], return_index=True)
        return rows[np.sort(first_answer)]


def overlap(answer: NDArray[np.integer], truth: NDArray[np.integer]) -> Overlap:
    """Measure the overlap of two label images of one shape; 0 is background, ids need not be consecutive.

    Pixels whose truth is below 0 are unknown and do not count; see :func:`known_part`.
    """
    if answer.shape != truth.shape:
        raise ValueError(f"expected label images of one shape, got {answer.shape} and {truth.shape}")
    answer, truth, _ = known_part(answer, truth)
    (truth, true_names), (answer, names) = dense_numbers(truth), dense_numbers(answer)
    table = coo_array(
        (np.ones(truth.size, dtype=np.int64), (truth.ravel(), answer.ravel())),
        shape=(int(truth.max(initial=0)) + 1, int(answer.max(initial=0)) + 1),
    ).tocsr()
    table.sum_duplicates()
    truth_area, answer_area = np.asarray(table.sum(axis=1)).ravel(), np.asarray(table.sum(axis=0)).ravel()
    entries = table.tocoo()
    rows, columns, shared = entries.coords[0], entries.coords[1], entries.data
    foreground = int(truth_area[1:].sum()), int(answer_area[1:].sum())
    both = (rows > 0) & (columns > 0)
    rows, columns, shared = rows[both], columns[both], shared[both]
    return Overlap(
        truths=int(np.count_nonzero(truth_area[1:])),
        answers=int(np.count_nonzero(answer_area[1:])),
        pairs=np.stack((true_names[rows], names[columns]), axis=1),
        iou=shared / (truth_area[rows] + answer_area[columns] - shared),
        cover=np.stack((shared / truth_area[rows], shared / answer_area[columns]), axis=1),
        foreground=(int(shared.sum()), *foreground),
    )


def known_part(
    answer: NDArray[np.integer], truth: NDArray[np.integer]
) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.bool_] | None]:
    """Return what can be compared of an answer and a truth with unknown pixels.

    An object of the answer with at least half of its pixels known is judged by its known pixels. The others are
    removed: neither right nor wrong.

    Parameters
    ----------
    answer, truth
        Label images of one shape, 0 background; the truth is below 0 where it is unknown.

    Returns
    -------
    answer, truth
        With 0 for unknown pixels; the same arrays if all are known.
    known
        Which pixels are known; None if all are.
    """
    known = truth >= 0
    if known.all():
        return answer, truth, None
    dense, _ = dense_numbers(answer)
    judged = judged_objects(dense, truth)
    return np.where(known & judged[dense], answer, 0), np.where(known, truth, 0), known


def judged_objects(answer: NDArray[np.integer], truth: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Tell for every predicted object whether at least half of its pixels have a known truth.

    Parameters
    ----------
    answer, truth
        As for :func:`known_part`; the numbers of the answer are small.

    Returns
    -------
    NDArray
        (n + 1,), by the object's number; entry 0 means nothing.
    """
    size = np.bincount(answer.ravel(), minlength=1)
    within = np.bincount(answer[truth >= 0], minlength=len(size))
    judged: NDArray[np.bool_] = 2 * within >= size
    judged[0] = True
    return judged

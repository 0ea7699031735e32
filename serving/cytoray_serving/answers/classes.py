"""The forms of a classification."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from cytoray_serving.answers.form import (
    ARROW,
    Form,
    arrow_bytes,
    channels_chosen,
    csv_bytes,
    model_answered,
    require_one,
    warning_rows,
)
from cytoray_serving.answers.kind import FREE, AnswerKind, Arrays, Tensors
from cytoray_serving.schema import CellRow, ClassProbability, ClassTable, box_sides

if TYPE_CHECKING:
    from cytoray_analysis.inference import Prediction
    from cytoray_analysis.inference.cells import CellInference
    from cytoray_analysis.tasks import Classes

_TOP = 3
_HEAT_MAPS = 64  # cells; each takes about as long as ten answers
_LEGIBLE = 512  # pixels: smaller pictures are enlarged before text is added


def class_table(prediction: Prediction) -> bytes:
    """Encode classes as a JSON table of cells, see :class:`cytoray_serving.schema.ClassTable`."""
    classes: Classes = prediction.answer
    rows = zip(
        classes.cells.numbers.tolist(),
        classes.cells.boxes.tolist(),
        classes.labels,
        classes.probabilities.tolist(),
        classes.top(_TOP),
        strict=True,
    )
    table = ClassTable(
        model=model_answered(prediction),
        warnings=warning_rows(prediction),
        channels=channels_chosen(prediction.image),
        axes=prediction.axes,
        classes=list(classes.names),
        seconds=dict(prediction.seconds),
        cells=[
            CellRow(
                number=number,
                **box_sides(starts, stops, prediction.axes),
                box=[*starts, *stops],
                label=label,
                probabilities=probabilities,
                top=[ClassProbability(label=name, probability=probability) for name, probability in top],
            )
            for number, (starts, stops), label, probabilities, top in rows
        ],
    )
    return table.model_dump_json().encode()


def class_columns(prediction: Prediction) -> dict[str, Sequence[Any] | NDArray[Any]]:
    """Return number, box, class, its probability, and the probability of every class, one row for each cell."""
    classes: Classes = prediction.answer
    boxes = classes.cells.boxes
    axes = prediction.axes.lower()
    columns: dict[str, Sequence[Any] | NDArray[Any]] = {"number": classes.cells.numbers}
    columns |= {f"{axis}min": boxes[:, 0, place] for place, axis in enumerate(axes)}
    columns |= {f"{axis}max": boxes[:, 1, place] for place, axis in enumerate(axes)}
    columns |= {"label": classes.labels, "probability": classes.probabilities.max(axis=1)}
    columns |= {f"probability_{name}": classes.probabilities[:, place] for place, name in enumerate(classes.names)}
    return columns


def class_overlay(prediction: Prediction) -> bytes:
    """Encode the image with a box and the class of every cell, as an RGB PNG.

    Every class has a colour. Small images are enlarged so that text is readable; a volume is shown as its maximum
    along Z.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    from cytoray_analysis.pictures import figure_png, new_figure
    from cytoray_serving.answers.display import picture

    classes: Classes = prediction.answer
    require_one(prediction, "an overlay")
    shown = picture(prediction.image)
    height, width = shown.shape[:2]
    factor = max(1, math.ceil(_LEGIBLE / max(height, width)))
    figure = new_figure(width=1.0, height=1.0)
    figure.set_layout_engine("none")
    figure.set_size_inches(width * factor / figure.dpi, height * factor / figure.dpi)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(shown, interpolation="none", extent=(0, width, height, 0), aspect="auto")
    axes.autoscale(enable=False)
    sure, chosen = classes.probabilities.max(axis=1), classes.probabilities.argmax(axis=1)
    for box, label, probability, index in zip(classes.cells.boxes, classes.labels, sure, chosen, strict=True):
        (top, left), (bottom, right) = box[:, -2:]
        colour = colormaps["tab10"](int(index) % 10)
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour))
        # A dollar sign in a name does not begin a formula.
        axes.text(
            left,
            top,
            f" {label} {probability:.2f}",
            color="white",
            fontsize=7,
            va="top",
            parse_math=False,
            clip_on=True,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )
    return figure_png(figure)


def heat_maps(prediction: Prediction) -> bytes:
    """Encode the input of the network for each cell, overlaid with the evidence for its class, as an RGB PNG.

    One picture for each of the first 64 cells in the order of the answer; the middle plane of volumes. See
    :func:`cytoray_analysis.attention_map.attention_map`.
    """
    from cytoray_analysis.attention_map import attention_map
    from cytoray_analysis.cells import Cells
    from cytoray_analysis.class_pictures import attention_overlay
    from cytoray_analysis.pictures import figure_png, new_figure

    classes: Classes = prediction.answer
    require_one(prediction, "a heat map")
    inference = cast("CellInference", prediction.inference)
    count = min(len(classes), _HEAT_MAPS)
    cells = Cells(classes.cells.boxes[:count], classes.cells.numbers[:count])
    # An image without given cells is one cell, and is scaled to the window.
    windows = inference.windows(prediction.image, None if prediction.given is None else cells) if count else ()
    columns = max(1, min(count, 8))
    figure = new_figure(width=1.6 * columns, height=0.4 + 1.9 * max(1, -(-count // columns)))
    figure.suptitle(f"{count} of {len(classes)} cells", fontsize=9)
    for place, (window, number, probabilities) in enumerate(
        zip(windows, cells.numbers, classes.probabilities, strict=False), start=1
    ):
        chosen = int(probabilities.argmax())
        heat = attention_map(prediction.inference.runner.network, window, chosen)
        axes = figure.add_subplot(-(-count // columns), columns, place)
        axes.imshow(attention_overlay(window, heat), interpolation="none")
        axes.set_title(f"{number}: {classes.names[chosen]} {probabilities[chosen]:.2f}", fontsize=6, parse_math=False)
        axes.set_axis_off()
    return figure_png(figure)


def arrays(prediction: Prediction) -> Arrays:
    """Return the probabilities, boxes and numbers of the cells."""
    classes: Classes = prediction.answer
    return {
        "probabilities": classes.probabilities.astype(np.float32, copy=False),
        "boxes": classes.cells.boxes.astype(np.float64, copy=False),
        "numbers": classes.cells.numbers.astype(np.int64, copy=False),
    }


def _tensors(axes: int) -> Tensors:
    return {
        "probabilities": ("FP32", [FREE, FREE]),
        "boxes": ("FP64", [FREE, 2, axes]),
        "numbers": ("INT64", [FREE]),
        "labels": ("BYTES", [FREE]),
        "classes": ("BYTES", [FREE]),
    }


def _named(arrays: Arrays, classes: tuple[str, ...]) -> Arrays:
    """Return the class of each cell, and all classes, by name."""
    names = np.empty(len(classes), object)
    names[:] = [name.encode() for name in classes]
    return {"labels": names[arrays["probabilities"].argmax(axis=1)], "classes": names}


def summary(prediction: Prediction, megapixels: float) -> dict[str, float]:
    """Return the share of each class, and the mean of the highest probability."""
    classes: Classes = prediction.answer
    if not len(classes):
        return {}
    counts = np.bincount(classes.probabilities.argmax(axis=1), minlength=len(classes.names))
    shares = {
        f"share_of_{name}": float(count) / len(classes) for name, count in zip(classes.names, counts, strict=True)
    }
    return shares | {"mean_top_probability": float(classes.probabilities.max(axis=1).mean())}


CLASSES = AnswerKind(
    own=(
        Form("json", "application/json", ".json", class_table, schema=ClassTable),
        Form("csv", "text/csv", ".csv", lambda prediction: csv_bytes(class_columns(prediction))),
        Form("arrow", ARROW, ".arrows", lambda prediction: arrow_bytes(class_columns(prediction))),
        Form("overlay", "image/png", ".overlay.png", class_overlay),
        Form("heatmap", "image/png; content=heatmap", ".heatmap.png", heat_maps),
    ),
    arrays=arrays,
    tensors=_tensors,
    about=lambda prediction: {"classes": json.dumps(prediction.answer.names), "box_axes": prediction.axes},
    named=_named,
    summary=summary,
    example="-F image=@image.tif -F masks=@masks.tif",
    noun="cell",
    takes=("masks", "boxes"),
)

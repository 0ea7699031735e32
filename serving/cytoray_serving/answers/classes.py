"""The forms of a classification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from numpy.typing import NDArray

from cytoray_analysis.cells import Cells
from cytoray_analysis.inference.cells import CellInference
from cytoray_analysis.tasks import Classes
from cytoray_serving.answers.form import ARROW, Answered, Form, arrow_bytes, csv_bytes
from cytoray_serving.schema import CellRow, ClassProbability, ClassTable, box_sides

_TOP = 3
_HEAT_MAPS = 64  # cells; each costs about as much as ten answers
_LEGIBLE = 512  # pixels: smaller pictures are enlarged before anything is written on them


def class_table(answered: Answered) -> bytes:
    """Encode classes as a JSON table of cells, see :class:`cytoray_serving.schema.ClassTable`."""
    classes: Classes = answered.prediction.answer
    rows = zip(
        classes.cells.numbers.tolist(),
        classes.cells.boxes.tolist(),
        classes.labels,
        classes.probabilities.tolist(),
        classes.top(_TOP),
        strict=True,
    )
    table = ClassTable(
        model=answered.model,
        warnings=answered.warnings,
        channels=answered.channels,
        axes=answered.axes,
        classes=list(classes.names),
        seconds=dict(answered.prediction.seconds),
        cells=[
            CellRow(
                number=number,
                **box_sides(starts, stops, answered.axes),
                box=[*starts, *stops],
                label=label,
                probabilities=probabilities,
                top=[ClassProbability(label=name, probability=probability) for name, probability in top],
            )
            for number, (starts, stops), label, probabilities, top in rows
        ],
    )
    return table.model_dump_json().encode()


def class_columns(answered: Answered) -> dict[str, Sequence[Any] | NDArray[Any]]:
    """Return number, box, class, its probability, and the probability of every class, a row for each cell."""
    classes: Classes = answered.prediction.answer
    boxes = classes.cells.boxes
    axes = answered.axes.lower()
    columns: dict[str, Sequence[Any] | NDArray[Any]] = {"number": classes.cells.numbers}
    columns |= {f"{axis}min": boxes[:, 0, place] for place, axis in enumerate(axes)}
    columns |= {f"{axis}max": boxes[:, 1, place] for place, axis in enumerate(axes)}
    columns |= {"label": classes.labels, "probability": classes.probabilities.max(axis=1)}
    columns |= {f"probability_{name}": classes.probabilities[:, place] for place, name in enumerate(classes.names)}
    return columns


def class_overlay(answered: Answered) -> bytes:
    """Encode the image with a box around every cell and its class beside it, as an RGB PNG.

    Every class has a colour. Small images are enlarged, so that words on them can be read; of a volume the brightest
    pixel along Z is shown.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    from cytoray_analysis.pictures import figure_png, new_figure
    from cytoray_serving.answers.display import picture

    classes: Classes = answered.prediction.answer
    answered.require_one("an overlay")
    shown = picture(answered.image)
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
        # Names come from people: a dollar sign in them begins no formula.
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


def heat_maps(answered: Answered) -> bytes:
    """Encode what the network saw of each cell, with what spoke for its class laid over it, as an RGB PNG.

    One picture per cell in the order of the answer, of volumes the middle plane, for at most the first 64 cells:
    see :func:`cytoray_analysis.attention_map.attention_map`.
    """
    from cytoray_analysis.attention_map import attention_map
    from cytoray_analysis.class_pictures import attention_overlay
    from cytoray_analysis.pictures import figure_png, new_figure

    classes: Classes = answered.prediction.answer
    answered.require_one("a heat map")
    inference = cast(CellInference, answered.predictor.inference)
    count = min(len(classes), _HEAT_MAPS)
    cells = Cells(classes.cells.boxes[:count], classes.cells.numbers[:count])
    # An image without cells given is one cell as a whole, and is scaled to the window.
    windows = inference.windows(answered.image, None if answered.objects is None else cells) if count else ()
    columns = max(1, min(count, 8))
    figure = new_figure(width=1.6 * columns, height=0.4 + 1.9 * max(1, -(-count // columns)))
    figure.suptitle(f"{count} of {len(classes)} cells", fontsize=9)
    for place, (window, number, probabilities) in enumerate(
        zip(windows, cells.numbers, classes.probabilities, strict=False), start=1
    ):
        chosen = int(probabilities.argmax())
        heat = attention_map(answered.predictor.runner.network, window, chosen)
        axes = figure.add_subplot(-(-count // columns), columns, place)
        axes.imshow(attention_overlay(window, heat), interpolation="none")
        axes.set_title(f"{number}: {classes.names[chosen]} {probabilities[chosen]:.2f}", fontsize=6, parse_math=False)
        axes.set_axis_off()
    return figure_png(figure)


FORMS = (
    Form("json", "application/json", ".json", class_table),
    Form("csv", "text/csv", ".csv", lambda answered: csv_bytes(class_columns(answered))),
    Form("arrow", ARROW, ".arrows", lambda answered: arrow_bytes(class_columns(answered))),
    Form("overlay", "image/png", ".overlay.png", class_overlay),
    Form("heatmap", "image/png; content=heatmap", ".heatmap.png", heat_maps),
)

"""``cytoray data make``: synthetic data sets, a subcommand for each task."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cytoray_analysis.errors import RequestError
from cytoray_services.commands.output import JsonOption, print_json

if TYPE_CHECKING:
    from cytoray_services.datasets import Dataset

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write.")]
Images = Annotated[int, typer.Option(help="Number of images.")]
Size = Annotated[str, typer.Option(metavar="N or YxX", help="Size in pixels, such as 256 or 520x696.")]
Seed = Annotated[int, typer.Option(help="Random seed; the same seed gives the same data.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")]


class Tasks(TyperGroup):
    """The tasks. Options before the task, as in earlier versions, are accepted with a warning."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move the task to the front."""
        task = next((word for word in args if word in self.commands), None)
        if task is not None and args[0] != task and args[0].startswith("-"):
            at = args.index(task)
            print(f"warning: write the task first: cytoray data make {task} DIR, then the options", file=sys.stderr)
            args = [task, *args[:at], *args[at + 1 :]]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the task of the command line."""
        if args[0] not in self.commands:
            raise RequestError(f"expected one of the tasks {', '.join(self.commands)}, got {args[0]!r}", field="task")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Tasks,
    no_args_is_help=True,
    add_completion=False,
    help="Write a synthetic data set with exact truth.\n\nExample: cytoray data make segmentation cells",
)


@app.command()
def segmentation(
    folder: Folder,
    images: Annotated[int | None, typer.Option(help="Number of images.", show_default="48, or 12 volumes")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="N or YxX", help="Size in pixels, such as 520x696.", show_default="256, or 96 for volumes"
        ),
    ] = None,
    bits: Annotated[int, typer.Option(help="Bits per pixel: 8, or 16 with the range of a 12-bit camera.")] = 8,
    depth: Annotated[int | None, typer.Option(help="Number of planes; makes volumes instead of images.")] = None,
    transmitted: Annotated[
        float | None, typer.Option(help="Share of images with dark nuclei on a bright field.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: JsonOption = False,
) -> None:
    """Make nuclei with masks: images, or volumes with --depth.

    Example: cytoray data make segmentation cells --images 48 --size 256
    """
    from cytoray_services.datasets.synthetic.segmentation import make_segmentation
    from cytoray_services.datasets.synthetic.volumes import make_volumes

    if bits not in (8, 16):
        raise RequestError(f"expected 8 or 16 bits, got {bits}", field="bits")
    options: dict[str, Any] = {"seed": seed, "overwrite": overwrite, "dtype": "uint8" if bits == 8 else "uint16"}
    options |= {} if images is None else {"images": images}
    options |= {} if size is None else {"size": _sides(size)}
    if depth is None:
        made = make_segmentation(folder, transmitted=transmitted or 0.0, **options)
    elif transmitted is None:
        made = make_volumes(folder, depth=depth, **options)
    else:
        raise RequestError(
            "expected either --depth or --transmitted, got both",
            field="transmitted",
            hint="volumes are fluorescence images",
        )
    _report(json, "segmentation", made)


@app.command()
def classification(
    folder: Folder,
    images: Images = 48,
    size: Size = "256",
    classes: Annotated[int, typer.Option(help="Number of classes, 2 to 4.")] = 4,
    imbalance: Annotated[float, typer.Option(help="Ratio of the largest class to the smallest.")] = 1.0,
    layout: Annotated[str, typer.Option(help="boxes (in a manifest) or folders (one per class).")] = "boxes",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: JsonOption = False,
) -> None:
    """Make cells of known classes.

    Example: cytoray data make classification smears --classes 3
    """
    from cytoray_services.datasets.synthetic.classification import make_classification as make

    kinds: dict[str, Any] = {"classes": classes, "imbalance": imbalance, "layout": layout}
    _report(
        json, "classification", make(folder, images=images, size=_sides(size), seed=seed, overwrite=overwrite, **kinds)
    )


@app.command()
def tracking(
    folder: Folder,
    images: Annotated[int, typer.Option(help="Number of movies.")] = 4,
    size: Size = "256",
    frames: Annotated[int, typer.Option(help="Frames per movie.")] = 24,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: JsonOption = False,
) -> None:
    """Make movies of dividing cells with their lineages.

    Example: cytoray data make tracking movies --frames 24
    """
    from cytoray_services.datasets.synthetic.tracking import make_tracking as make

    made = make(folder, movies=images, frames=frames, size=_sides(size), seed=seed, overwrite=overwrite)
    _report(json, "tracking", made)


@app.command("label-free")
def label_free(
    folder: Folder,
    images: Images = 48,
    size: Size = "128",
    planes: Annotated[int, typer.Option(help="Planes of the input.")] = 1,
    volume: Annotated[bool, typer.Option("--volume", help="Make the target a volume of the same planes.")] = False,
    channels: Annotated[int, typer.Option(help="Number of stains to predict, 1 or 2.")] = 1,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: JsonOption = False,
) -> None:
    """Make transmitted-light images with the fluorescence of the same cells.

    Example: cytoray data make label-free stains --planes 5
    """
    from cytoray_services.datasets.synthetic.label_free import make_label_free as make

    form: dict[str, Any] = {"size": _sides(size), "planes": planes, "volume": volume, "channels": channels}
    _report(json, "label-free", make(folder, images=images, seed=seed, overwrite=overwrite, **form))


def _report(json: bool, task: str, dataset: Dataset) -> None:
    from cytoray_services.datasets import hash_dataset

    splits = Counter(item.split for item in dataset.items)
    if json:
        print_json({"dataset": str(dataset.root), "task": task, "splits": dict(splits), "hash": hash_dataset(dataset)})
    else:
        counts = ", ".join(f"{count} {split}" for split, count in splits.items())
        typer.echo(f"{dataset.root}: {len(dataset)} items ({counts})")


def _sides(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise RequestError(f"expected a size such as 256 or 520x696, got {text!r}", field="size")
    return int(sides[0]), int(sides[-1])

"""What ``cytoray predict`` does with its inputs: finds them, has each answered, and writes the answers."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_analysis.files import write_whole
from cytoray_analysis.images import Image
from cytoray_analysis.inference.objects import find_objects, require_labels
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks import TruthKind
from cytoray_services.registry import load_bundle
from cytoray_services.settings import Settings
from cytoray_serving.answers import Answered, Form, form_named
from cytoray_serving.client import Client
from cytoray_serving.inputs import (
    cells_of_rows,
    holds_frames,
    holds_masks,
    in_model_axes,
    is_movie,
    is_zarr,
    label_pixels,
    open_input,
    open_masks,
    require_objects_fit,
    rows_of_csv,
)

ZARR = "zarr"
_IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".czi", ".nd2", ".lif")


@dataclass(frozen=True)
class Told:
    """What the caller tells of the objects beside the inputs; None for nothing.

    Attributes
    ----------
    masks
        A label image, or of a movie all its masks, as a file or a folder of numbered masks; or a folder in which each
        input has masks of its name.
    boxes
        A CSV file, see :func:`cytoray_serving.inputs.rows_of_csv`.
    segmentation
        Reference of a model that finds the objects.
    """

    masks: Path | None = None
    boxes: Path | None = None
    segmentation: str | None = None

    def masks_of(self, path: Path, *, alone: bool) -> Path | None:
        """Return where the masks of an input lie; `alone` says that it is the only one.

        Raises
        ------
        MissingFileError
            They are not where they should be.
        RequestError
            There is one file of masks for several inputs.
        """
        if self.masks is None:
            return None
        if not self.masks.exists():
            raise MissingFileError(f"{self.masks} does not exist", field="masks", hint="check the path")
        if self.masks.is_dir() and not is_zarr(self.masks):
            found = [entry for entry in sorted(self.masks.iterdir()) if stem(entry) == stem(path)]
            if found:
                return found[0]
            if not alone or not holds_masks(self.masks):
                raise MissingFileError(
                    f"the folder {self.masks} holds no masks named {stem(path)}",
                    field="masks",
                    hint="masks have the name of their image; those of a movie are numbered, such as mask000.tif",
                )
        elif not alone:
            raise RequestError(
                f"expected a folder of masks for several inputs, got the file {self.masks}",
                field="masks",
                hint="give a folder in which masks have the names of their images",
            )
        return self.masks

    def rows_of(self, path: Path, *, alone: bool) -> list[list[float]] | None:
        """Return the boxes of an input, X first."""
        return None if self.boxes is None else rows_of_csv(self.boxes, path, alone=alone)


@dataclass(frozen=True)
class Answerer:
    """Answers one input after the other.

    Attributes
    ----------
    kind
        What the answers are.
    answer
        Given an input, where its answer goes (without its suffix) and whether it is the only input, writes the answer
        and returns where it lies and how many objects it holds.
    """

    kind: TruthKind
    answer: Callable[[Path, Path, bool], tuple[Path, int]]


def answer_here(
    model: str, form: str | None, told: Told, *, settings: Settings, memory_budget: int, device: str | None
) -> Answerer:
    """Answer with a predictor in this process.

    Parameters
    ----------
    model
        ``name``, ``name@alias``, ``name/version`` or a bundle folder.
    form
        Name of the answers' form, or ``zarr``; the first of the model's kind for None.
    told
        What is told beside the inputs.
    settings
        Where the registry is.
    memory_budget
        Bytes for one prediction; larger images are cut.
    device
        A torch device; None takes an accelerator where there is one.

    Raises
    ------
    CytorayError
        A model does not exist, or its answers have no such form.
    """

    def load(reference: str) -> Predictor:
        bundle, version = load_bundle(reference, settings)
        number = None if version is None else version.version
        return Predictor(bundle, device=device, memory_budget=memory_budget, version=number)

    predictor = load(model)
    kind = predictor.task.output.truth
    chosen = None if form == ZARR else form_named(form, kind)
    require_objects_fit(predictor, masks=told.masks, boxes=told.boxes, segmentation=told.segmentation)
    segmenter = None
    if told.segmentation is not None:
        segmenter = load(told.segmentation)
        require_labels(segmenter, told.segmentation)
    expected = predictor.bundle.spec.input

    def objects_of(path: Path, image: Image, alone: bool) -> Any:
        if segmenter is not None:
            with _progress(f"{path.name}: segmentation") as progress:
                return find_objects(image, segmenter, progress=progress)
        masks, rows = told.masks_of(path, alone=alone), told.rows_of(path, alone=alone)
        if masks is not None:
            return label_pixels(open_masks(masks), expected)
        return None if rows is None else cells_of_rows(rows, image, expected)

    def answer(path: Path, target: Path, alone: bool) -> tuple[Path, int]:
        image = in_model_axes(open_input(path), movie=is_movie(expected))
        if chosen is None or (predictor.task.output.per == "pixel" and not predictor.fits(image)):
            return _stream(predictor, image, target, form)
        objects = objects_of(path, image, alone)
        answered = Answered(predictor.predict(image, objects), image, predictor, objects)
        if chosen.write_folder is None:
            written = write_file(target, chosen.suffix, chosen.encode(answered), path)
        else:
            with new_folder(target.with_name(target.name + chosen.suffix)) as folder:
                chosen.write_folder(answered, folder)
            written = target.with_name(target.name + chosen.suffix)
        return written, answered.prediction.objects

    return Answerer(kind, answer)


def answer_there(client: Client, model: str, form: str | None, told: Told) -> Answerer:
    """Answer by asking a service; parameters as of :func:`answer_here`.

    Raises
    ------
    ModelNotFoundError
        The service has no such model.
    PlatformError
        The service does not answer.
    """
    kind = client.model(model).kind
    chosen = form_named(form, kind)

    def answer(path: Path, target: Path, alone: bool) -> tuple[Path, int]:
        served = client.predict(
            path,
            model=model,
            accept=chosen.media_type,
            masks=told.masks_of(path, alone=alone),
            boxes=told.rows_of(path, alone=alone),
            segmentation=told.segmentation,
        )
        return _write_served(chosen, served.body, target, path), served.objects

    return Answerer(kind, answer)


def expand(inputs: Sequence[Path], kind: TruthKind) -> Iterator[Path]:
    """Yield the images that the inputs name, those of a folder in the order of their names.

    For a model of movies a folder of frames ``t000.tif`` is one input.
    """
    for path in inputs:
        if not path.is_dir() or is_zarr(path) or (kind == "lineage" and holds_frames(path)):
            yield path  # a path that does not exist is reported when it is read, beside the others
            continue
        found = [entry for entry in sorted(path.iterdir()) if _is_image(entry)]
        if not found:
            raise MissingFileError(
                f"the folder {path} holds no image", field="input", hint=f"images end in {', '.join(_IMAGE_SUFFIXES)}"
            )
        yield from found


def targets_of(paths: Sequence[Path], out: Path) -> list[Path]:
    """Return where each answer goes, without its suffix; inputs of one name from different folders get a number."""
    seen: dict[str, int] = {}
    targets = []
    for path in paths:
        name = stem(path)
        seen[name] = seen.get(name, 0) + 1
        targets.append(out / (name if seen[name] == 1 else f"{name}-{seen[name]}"))
    return targets


def stem(path: Path) -> str:
    """Return the name of a file without the suffixes of its format."""
    return path.name.removesuffix(path.suffix).removesuffix(".ome")


def write_file(target: Path, suffix: str, body: bytes, source: Path) -> Path:
    """Write an answer in one step.

    Raises
    ------
    RequestError
        It would replace its input.
    """
    path = target.with_name(target.name + suffix)
    if path.exists() and source.exists() and path.samefile(source):
        raise RequestError(f"the answer would replace its input {source}", field="out", hint="choose another --out")
    return write_whole(path, body)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, which appears at `path` when all went well.

    Raises
    ------
    RequestError
        There is something at `path` already.
    """
    _require_absent(path)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield draft
        draft.chmod(0o755)
        draft.replace(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _write_served(form: Form, body: bytes, target: Path, source: Path) -> Path:
    """Write what a service answered; archives are unpacked."""
    if form.write_folder is None:
        return write_file(target, form.suffix, body, source)
    path = target.with_name(target.name + form.suffix)
    with new_folder(path) as folder, zipfile.ZipFile(BytesIO(body)) as archive:
        archive.extractall(folder)
    return path


def _stream(predictor: Predictor, image: Image, target: Path, form: str | None) -> tuple[Path, int]:
    """Answer for an image that does not fit into memory, block by block, into an OME-Zarr."""
    if form not in (None, "tif", ZARR):
        raise RequestError(
            f"{image.source} is larger than the memory budget, so its answer is written as OME-Zarr, not as {form}",
            field="format",
            hint="use --format zarr, or give more --memory",
        )
    path = target.with_name(f"{target.name}.ome.zarr")
    _require_absent(path)
    with _progress(target.name) as progress:
        stored = predictor.predict_to_zarr(image, path, progress=progress)
    return path, stored.objects


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error, and give the function that moves it."""
    with Progress(*Progress.get_default_columns(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _require_absent(path: Path) -> None:
    if path.exists():
        raise RequestError(f"{path} exists already", field="out", hint="remove it, or choose another --out")


def _is_image(path: Path) -> bool:
    if path.is_dir():
        return is_zarr(path)
    return path.suffix.lower() in _IMAGE_SUFFIXES and not path.name.startswith(".")

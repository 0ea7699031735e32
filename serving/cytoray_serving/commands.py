"""``cytoray serve`` and ``cytoray predict``."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import Progress

from cytoray_analysis.errors import CytorayError, InputError, MissingFileError, ModelNotFoundError, RequestError
from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.settings import Settings, load_settings

if TYPE_CHECKING:
    from cytoray_analysis.images import Image
    from cytoray_analysis.predictor import Predictor

_IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".czi", ".nd2", ".lif")
_ZARR_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_FORMATS = "tif, png, geojson, json, overlay or zarr"
_ZARR = "zarr"


class Output(BaseModel):
    """What became of one input: an output, or an error."""

    model_config = ConfigDict(frozen=True)

    input: str
    output: str | None = None
    objects: int | None = None
    seconds: float
    error: dict[str, str] | None = None


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="name, name@alias, name/version or bundle folder; default all."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    replicas: Annotated[int, typer.Option(min=1, help="Copies of each model.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores per copy; default its share.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda …; default an accelerator where there is one.")] = None,
    largest_body: Annotated[int, typer.Option(min=1, help="Megabytes of the largest request.")] = 256,
    json: JsonOption = False,
) -> None:
    """Serve models over HTTP until stopped; an alias that moves is followed without a restart."""
    from cytoray_serving.app import start_service
    from cytoray_serving.replica import ReplicaOptions

    settings = load_settings()
    references = models or _all_models(settings)
    stop = threading.Event()
    # A signal while Ray starts must unwind what has been started.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        service = start_service(
            references,
            settings=settings,
            host=host,
            port=port,
            replicas=replicas,
            options=ReplicaOptions(threads=threads, device=device),
            largest_body=largest_body * 2**20,
        )
    except KeyboardInterrupt:
        raise typer.Exit(1) from None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    first = service.models[0].names[-1]
    example = f"curl --data-binary @image.tif {service.url}/models/{first}/predict -o labels.tif"
    print(f"serving {', '.join(references)} at {service.url}\n{example}", file=sys.stderr, flush=True)
    if json:
        served = [{"reference": one.reference, "names": list(one.names)} for one in service.models]
        print_json({"url": service.url, "models": served, "pid": os.getpid()})
    stop.wait()
    print("stopping", file=sys.stderr, flush=True)
    service.stop()


def predict(
    model: Annotated[str, typer.Argument(help="name, name@alias, name/version, or a bundle folder.")],
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Images, folders of images, or OME-Zarr folders.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the answers; made when it does not exist.")],
    url: Annotated[str | None, typer.Option(help="Ask this service instead of predicting in this process.")] = None,
    form: Annotated[str, typer.Option("--format", help=f"Form of the answers: {_FORMATS}.")] = "tif",
    memory: Annotated[int, typer.Option(min=16, help="Megabytes for one prediction; larger images are cut.")] = 1024,
    device: Annotated[str | None, typer.Option(help="cpu, cuda …; default an accelerator where there is one.")] = None,
    json: JsonOption = False,
) -> None:
    """Predict images, in this process or by a service.

    One bad image does not keep the others from being answered: all are reported, and the exit status is 2 at the end.
    """
    from cytoray_serving.answers import form_named

    if form != _ZARR:
        form_named(form)
    elif url is not None:
        raise RequestError(
            "a service does not answer with OME-Zarr", field="format", hint="leave --url or --format out"
        )
    paths = list(_expand(inputs))
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as cleanup:
        answer = _local(model, form, memory * 2**20, device) if url is None else _remote(url, model, form, cleanup)
        outputs, failures = _answer_all(paths, out, answer, quiet=json)
    if failures and len(paths) == 1:
        raise failures[0]
    if json:
        print_json({"model": model, "outputs": [one.model_dump(exclude_none=True) for one in outputs]})
    if failures:
        raise typer.Exit(2 if all(isinstance(error, InputError) for error in failures) else 1)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _all_models(settings: Settings) -> list[str]:
    from cytoray_services.registry import Registry

    names = [model.name for model in Registry.open(settings).list()]
    if not names:
        raise ModelNotFoundError("the registry holds no model to serve", hint="train one: cytoray train RECIPE")
    return names


def _answer_all(
    paths: Sequence[Path], out: Path, answer: Callable[[Path, Path], tuple[Path, int]], *, quiet: bool
) -> tuple[list[Output], list[CytorayError]]:
    outputs: list[Output] = []
    failures: list[CytorayError] = []
    targets = _targets(paths, out)
    for path, target in zip(paths, targets, strict=True):
        start = time.perf_counter()
        try:
            written, objects = answer(path, target)
        except CytorayError as error:
            failures.append(error)
            taken = time.perf_counter() - start
            outputs.append(Output(input=str(path), seconds=taken, error=error.describe()))
            if len(paths) > 1:
                hint = "" if error.hint is None else f" ({error.hint})"
                print(f"{path}: {error.message}{hint}", file=sys.stderr)
            continue
        taken = time.perf_counter() - start
        outputs.append(Output(input=str(path), output=str(written), objects=objects, seconds=taken))
        if not quiet:
            print(f"{path} → {written}: {objects} objects, {taken:.2f} s")
    return outputs, failures


def _local(model: str, form: str, memory_budget: int, device: str | None) -> Callable[[Path, Path], tuple[Path, int]]:
    """Answer with a predictor in this process."""
    from cytoray_analysis.images import read_image
    from cytoray_analysis.predictor import Predictor
    from cytoray_services.registry import load_bundle
    from cytoray_serving.answers import form_named

    bundle, version = load_bundle(model, load_settings())
    predictor = Predictor(
        bundle, device=device, memory_budget=memory_budget, version=None if version is None else version.version
    )

    def answer(path: Path, target: Path) -> tuple[Path, int]:
        image = read_image(path)
        if form == _ZARR or _bytes_whole(image) > memory_budget:
            return _stream(predictor, image, target, form)
        chosen = form_named(form)
        prediction = predictor.predict(image)
        written = _write(target, chosen.suffix, chosen.encode(prediction, image), path)
        return written, prediction.objects

    return answer


def _stream(predictor: Predictor, image: Image, target: Path, form: str) -> tuple[Path, int]:
    """Answer for an image that does not fit into memory, block by block, into an OME-Zarr."""
    if form not in ("tif", _ZARR):
        raise RequestError(
            f"{image.source} is larger than the memory budget, so its answer is written as OME-Zarr, not as {form}",
            field="format",
            hint="use --format zarr, or give more --memory",
        )
    path = target.with_name(f"{target.name}.ome.zarr")
    if path.exists():
        raise RequestError(f"{path} exists already", field="out", hint="remove it, or choose another --out")
    with Progress(*Progress.get_default_columns(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(target.name, total=None)
        stored = predictor.predict_to_zarr(
            image, path, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    return path, stored.objects


def _remote(url: str, model: str, form: str, cleanup: ExitStack) -> Callable[[Path, Path], tuple[Path, int]]:
    """Answer by asking a service."""
    from cytoray_serving.answers import form_named
    from cytoray_serving.client import Client

    chosen = form_named(form)
    client = cleanup.enter_context(Client(url))

    def answer(path: Path, target: Path) -> tuple[Path, int]:
        served = client.predict(path, model=model, accept=chosen.media_type)
        return _write(target, chosen.suffix, served.body, path), served.objects

    return answer


def _expand(inputs: Iterable[Path]) -> Iterable[Path]:
    """Yield the images that the inputs name, those of a folder in the order of their names."""
    for path in inputs:
        if not path.is_dir() or _is_zarr(path):
            yield path  # a path that does not exist is reported when it is read, beside the others
            continue
        found = [entry for entry in sorted(path.iterdir()) if _is_image(entry)]
        if not found:
            raise MissingFileError(
                f"the folder {path} holds no image", field="input", hint=f"images end in {', '.join(_IMAGE_SUFFIXES)}"
            )
        yield from found


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in _ZARR_FILES)


def _is_image(path: Path) -> bool:
    if path.is_dir():
        return _is_zarr(path)
    return path.suffix.lower() in _IMAGE_SUFFIXES and not path.name.startswith(".")


def _targets(paths: Sequence[Path], out: Path) -> list[Path]:
    """Return where each answer goes, without its suffix; inputs of one name from different folders get a number."""
    seen: dict[str, int] = {}
    targets = []
    for path in paths:
        stem = path.name.removesuffix(path.suffix).removesuffix(".ome")
        seen[stem] = seen.get(stem, 0) + 1
        targets.append(out / (stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"))
    return targets


def _write(target: Path, suffix: str, body: bytes, source: Path) -> Path:
    """Write an answer in one step."""
    path = target.with_name(target.name + suffix)
    if path.exists() and source.exists() and path.samefile(source):
        raise RequestError(f"the answer would replace its input {source}", field="out", hint="choose another --out")
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    return path


def _bytes_whole(image: Image) -> int:
    """Return the bytes of an image's scaled pixels (float32) and of its answer (int32)."""
    pixels = 1
    for length in image.spatial_shape:
        pixels *= length
    return 4 * pixels * (image.size("C") + 1)

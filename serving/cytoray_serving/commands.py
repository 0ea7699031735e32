"""``cytoray serve`` and ``cytoray predict``."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict

from cytoray_analysis.errors import CytorayError, InputError, RequestError
from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.settings import load_settings

if TYPE_CHECKING:
    from cytoray_serving.predicting import Answerer

_FORMATS = (
    "Form of the answers; the first is the default. Segmentation: tif, json, geojson, overlay, png, csv, arrow, zarr; "
    "label-free: tif, png, json, zarr; classification: json, csv, arrow, overlay, heatmap; tracking: zip (written as a "
    "folder), csv, geff, json, arrow; all: arrays."
)


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
        typer.Argument(
            metavar="[MODEL]...",
            help="name, name@alias, name/version or bundle folder, each with replicas of its own; all other registered "
            "models share replicas that start when they are asked for.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file, see docs/guides/serving.md.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    grpc_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Speak gRPC there, too.")] = None,
    insecure_local: Annotated[
        bool, typer.Option("--insecure-local", help="Ask for no token; this machine's own address only.")
    ] = False,
    replicas: Annotated[str, typer.Option(help="Copies of each model: 2, or 0-4 by what waits.")] = "1",
    threads: Annotated[int | None, typer.Option(min=1, help="Cores per copy; default its share.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda …; default an accelerator where there is one.")] = None,
    largest_body: Annotated[int | None, typer.Option(min=1, help="Megabytes of the largest request.")] = None,
    allow: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="Folder that file URIs may lie in; may be repeated.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Serve models over HTTP until stopped; an alias that moves is followed without a restart."""
    from cytoray_serving.app import start_service
    from cytoray_serving.service_config import configured

    settings = load_settings()
    wanted = configured(
        config,
        models=models or (),
        replicas=replicas,
        threads=threads,
        device=device,
        largest_body=largest_body,
        insecure_local=insecure_local,
        roots=allow or (),
    )
    if wanted.insecure_local and host not in ("127.0.0.1", "localhost", "::1"):
        raise RequestError(
            f"expected this machine's own address with --insecure-local, got {host}",
            field="host",
            hint="leave --host out, or make tokens: cytoray tokens create NAME",
        )
    stop = threading.Event()
    # A signal while Ray starts must unwind what has been started.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        service = start_service(wanted, settings=settings, host=host, port=port, grpc_port=grpc_port)
    except KeyboardInterrupt:
        raise typer.Exit(1) from None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    names = ", ".join(one.model for one in wanted.models) or "every registered model"
    print(f"serving {names} at {service.url}\n{service.example}", file=sys.stderr, flush=True)
    if json:
        served = [{"reference": one.reference, "names": list(one.names)} for one in service.models]
        print_json({"url": service.url, "grpc": service.grpc, "models": served, "pid": os.getpid()})
    stop.wait()
    print("stopping", file=sys.stderr, flush=True)
    service.stop()


def predict(
    model: Annotated[str, typer.Argument(help="name, name@alias, name/version, or a bundle folder.")],
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Images, folders of images or of frames, or OME-Zarr folders."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the answers; made when it does not exist.")],
    url: Annotated[str | None, typer.Option(help="Ask this service instead of predicting in this process.")] = None,
    form: Annotated[str | None, typer.Option("--format", help=_FORMATS)] = None,
    masks: Annotated[Path | None, typer.Option(help="Label image of the objects; or a folder of them.")] = None,
    boxes: Annotated[Path | None, typer.Option(help="CSV of the cells: xmin, ymin, xmax, ymax, and image.")] = None,
    segmentation: Annotated[str | None, typer.Option(metavar="MODEL", help="Model that finds the objects.")] = None,
    memory: Annotated[int, typer.Option(min=16, help="Megabytes for one prediction; larger images are cut.")] = 1024,
    device: Annotated[str | None, typer.Option(help="cpu, cuda …; default an accelerator where there is one.")] = None,
    json: JsonOption = False,
) -> None:
    """Predict images and movies, in this process or by a service.

    Models of cells can be told where the cells are, models of movies must be: by --masks, --boxes (cells only) or a
    --segmentation model. One bad input does not keep the others from being answered: all are reported, and the exit
    status is 2 at the end.
    """
    from cytoray_serving.client import Client
    from cytoray_serving.predicting import ZARR, Told, answer_here, answer_there, expand

    if form == ZARR and url is not None:
        raise RequestError(
            "a service does not answer with OME-Zarr", field="format", hint="leave --url or --format out"
        )
    told = Told(masks, boxes, segmentation)
    with ExitStack() as cleanup:
        if url is None:
            settings = load_settings()
            answerer = answer_here(model, form, told, settings=settings, memory_budget=memory * 2**20, device=device)
        else:
            answerer = answer_there(cleanup.enter_context(Client(url)), model, form, told)
        paths = list(expand(inputs, answerer.kind))
        out.mkdir(parents=True, exist_ok=True)
        outputs, failures = _answer_all(paths, out, answerer, quiet=json)
    if failures and len(paths) == 1:
        raise failures[0]
    if json:
        print_json({"model": model, "outputs": [one.model_dump(exclude_none=True) for one in outputs]})
    if failures:
        raise typer.Exit(2 if all(isinstance(error, InputError) for error in failures) else 1)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _answer_all(
    paths: Sequence[Path], out: Path, answerer: Answerer, *, quiet: bool
) -> tuple[list[Output], list[CytorayError]]:
    from cytoray_serving.predicting import targets_of

    outputs: list[Output] = []
    failures: list[CytorayError] = []
    for path, target in zip(paths, targets_of(paths, out), strict=True):
        start = time.perf_counter()
        try:
            written, objects = answerer.answer(path, target, len(paths) == 1)
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

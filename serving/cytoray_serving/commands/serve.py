"""``cytoray serve`` and ``cytoray predict``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from cytoray_analysis.errors import RequestError
from cytoray_services.commands.idle import refuse_idle
from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.commands.selecting import (
    ChannelOption,
    DiameterOption,
    FrameOption,
    InputAxesOption,
    PixelSizeOption,
    PlaneOption,
    SeriesOption,
    chosen,
)
from cytoray_services.settings import load_settings

_LOOK_SECONDS = 5.0
_FORMATS = (
    "Format of the answers; may be repeated; by default the first of the task. Segmentation: tif, json, geojson, "
    "overlay, png, csv, arrow, zarr; label-free: tif, png, json, zarr; classification: json, csv, arrow, overlay, "
    "heatmap; tracking: zip (written as a folder), csv, divisions, geff, json, arrow; all: arrays."
)


def serve(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="name, name@alias, name/version or bundle folder; each gets dedicated replicas. All other registered "
            "models are served by shared replicas, which start at the first request.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Configuration file in YAML, see docs/guides/serving.md.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all addresses.")] = "127.0.0.1",
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port for gRPC; 0 for a free one. Off by default.")
    ] = None,
    insecure_local: Annotated[
        bool, typer.Option("--insecure-local", help="Require no token; listen on the loopback address only.")
    ] = False,
    replicas: Annotated[
        str, typer.Option(help="Replicas of each model: 2, or 0-4 to scale with the queued megapixels.")
    ] = "1",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Cores per replica; by default an equal share of all cores.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda …; by default an accelerator, if there is one.")] = None,
    largest_body: Annotated[
        int | None, typer.Option(min=1, help="Maximum size of a request in megabytes; 256 by default.")
    ] = None,
    allow: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Folder in which requests may name files by URI; may be repeated."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Serve models over HTTP until stopped. When an alias moves, the service loads the new version without a restart.

    Example: cytoray serve nuclei@champion --insecure-local
    """
    from cytoray_serving.service.app import start_service
    from cytoray_serving.service.config import configured

    if not models:
        hint = "name a MODEL, or set these options in the file of --config: docs/guides/serving.md lists its fields"
        refuse_idle(context, ("replicas", "threads", "device"), "without MODEL", hint=hint)
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
            f"expected the loopback address with --insecure-local, got {host}",
            field="host",
            hint="remove --host, or create tokens: cytoray tokens create NAME",
        )
    stop = threading.Event()
    service = start_service(wanted, settings=settings, host=host, port=port, grpc_port=grpc_port)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    names = ", ".join(one.model for one in wanted.models) or "every registered model"
    print(f"serving {names} at {service.url}\n{service.example}", file=sys.stderr, flush=True)
    if json:
        served = [{"reference": one.reference, "names": list(one.names)} for one in service.models]
        print_json({"url": service.url, "grpc": service.grpc, "models": served, "pid": os.getpid()})
    while not stop.wait(_LOOK_SECONDS):
        service.require_ray()
    print("stopping", file=sys.stderr, flush=True)
    service.stop()


def predict(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="name, name@alias, name/version, or a bundle folder.")],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT", help="Images, folders of images or of frames, OME-Zarr folders, patterns ('*.tif')."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the answers; created if it does not exist.")],
    url: Annotated[
        str | None, typer.Option(help="Send requests to this service instead of predicting in this process.")
    ] = None,
    form: Annotated[list[str] | None, typer.Option("--format", help=_FORMATS)] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Label image of the objects, or a folder of them with the names or paths of the images."),
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option(help="CSV of the cells: xmin, ymin, xmax, ymax, and image (its name or path).")
    ] = None,
    segmentation: Annotated[str | None, typer.Option(metavar="MODEL", help="Model that finds the objects.")] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Search subfolders also, and create the same subfolders in --out.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing answers; edited ones are renamed and kept.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Keep existing answers of the same model and options.")
    ] = False,
    channel: ChannelOption = None,
    plane: PlaneOption = None,
    frame: FrameOption = None,
    series: SeriesOption = None,
    input_axes: InputAxesOption = None,
    pixel_size: PixelSizeOption = None,
    diameter: DiameterOption = None,
    memory: Annotated[
        int, typer.Option(min=16, help="Megabytes for one prediction; larger images are processed in tiles.")
    ] = 1024,
    device: Annotated[str | None, typer.Option(help="cpu, cuda …; by default an accelerator, if there is one.")] = None,
    json: JsonOption = False,
) -> None:
    """Predict images and movies, in this process or with a service.

    Example: cytoray predict nuclei@champion images/ --out answers --format tif --format csv

    For classification you can give the positions of the cells, for tracking you must: with --masks, --boxes (cells
    only) or a --segmentation model. No file is replaced: existing answers are an error before work starts. One bad
    input does not stop the others: every error is reported, and the exit status is then 2.
    """
    from cytoray_serving.client import Client
    from cytoray_serving.commands.predict import predict_inputs
    from cytoray_serving.predict.given_objects import GivenObjects
    from cytoray_serving.predict.predicting import answer_here, answer_there

    if overwrite and skip_existing:
        raise RequestError(
            "expected --overwrite or --skip-existing, got both", field="overwrite", hint="remove one of them"
        )
    if url is not None:
        refuse_idle(context, ("memory", "device"), "with --url", hint="remove them: the service decides")
    selection = chosen(channel, plane, frame, series, input_axes, pixel_size, diameter)
    given = GivenObjects(masks, boxes, segmentation)
    with ExitStack() as cleanup:
        if url is None:
            settings = load_settings()
            answerer = answer_here(
                model, form or (), given, settings=settings, memory_budget=memory * 2**20, device=device
            )
        else:
            answerer = answer_there(cleanup.enter_context(Client(url)), model, form or (), given)
        predict_inputs(
            answerer,
            inputs,
            out,
            given,
            model=model,
            selection=selection,
            existing="overwrite" if overwrite else "skip" if skip_existing else "refuse",
            recursive=recursive,
            json=json,
        )

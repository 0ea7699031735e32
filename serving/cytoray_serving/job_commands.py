"""``cytoray jobs``: trainings on a cluster, and work in bulk that a service does."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cytoray_analysis.errors import RequestError
from cytoray_services.commands import jobs
from cytoray_services.commands.idle import refuse_idle
from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.commands.selecting import (
    ChannelOption,
    FrameOption,
    InputAxesOption,
    PixelSizeOption,
    PlaneOption,
    SeriesOption,
    chosen,
)

if TYPE_CHECKING:
    from cytoray_serving.client import Client
    from cytoray_serving.jobs.request import JobStatus

app = typer.Typer(
    no_args_is_help=True,
    help="Trainings on a cluster, and work in bulk: slides, volumes, plates, movies, folders of images.",
)

_POLL_SECONDS = 1.0
_PLACES = "local|ray://…|http://HEAD:8265|kubernetes[:CONTEXT[/NAMESPACE]]|service:URL"
UrlOption = Annotated[str, typer.Option(help="Address of the service that works in bulk.", envvar="CYTORAY_URL")]
OnOption = Annotated[str | None, typer.Option("--on", metavar=_PLACES, help="Where trainings run.")]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="As submit and list show it.")]
FollowOption = Annotated[bool, typer.Option("--follow", help="Go on until the job has ended.")]
LOCAL = "http://127.0.0.1:8000"
_ABOUT_IMAGES = (
    *("form", "pattern", "masks", "boxes", "segmentation", "workers", "url"),
    *("channel", "plane", "frame", "series", "input_axes", "pixel_size"),
)


@app.command()
def submit(
    context: typer.Context,
    what: Annotated[
        str, typer.Argument(metavar="RECIPE|MODEL", help="A recipe, YAML; or name, name@alias, name/version, pipeline.")
    ],
    source: Annotated[
        str | None, typer.Argument(metavar="[INPUT]", help="URI or path of an image, a plate or a folder.")
    ] = None,
    output: Annotated[
        str | None, typer.Argument(metavar="[OUTPUT]", help="URI or path of a folder that holds nothing yet.")
    ] = None,
    on: OnOption = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the recipe.")
    ] = None,
    command: Annotated[str, typer.Option(metavar="train|tune", help="What is done with the recipe.")] = "train",
    team: Annotated[str | None, typer.Option(help="For whom, where quotas are kept.")] = None,
    code: Annotated[bool, typer.Option("--code", help="Send the code that is installed here along.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")] = False,
    url: UrlOption = LOCAL,
    form: Annotated[str | None, typer.Option("--format", help="Form of the answers, as for predict; or zarr.")] = None,
    pattern: Annotated[str, typer.Option(help="Which names of a folder are taken, such as '*.tif'.")] = "*",
    masks: Annotated[str | None, typer.Option(help="URI of a label image of the objects, or a folder of them.")] = None,
    boxes: Annotated[str | None, typer.Option(help="URI of a CSV of the cells.")] = None,
    segmentation: Annotated[str | None, typer.Option(metavar="MODEL", help="Model that finds the objects.")] = None,
    channel: ChannelOption = None,
    plane: PlaneOption = None,
    frame: FrameOption = None,
    series: SeriesOption = None,
    input_axes: InputAxesOption = None,
    pixel_size: PixelSizeOption = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes at most.")] = None,
    follow: FollowOption = False,
    json: JsonOption = False,
) -> None:
    """Train by a RECIPE on a cluster; or have a service answer images with a MODEL from a URI to a URI.

    A recipe runs --on this machine by default. Paths of images are those of the service's machine.
    """
    if source is None and (on is not None or what.endswith((".yaml", ".yml"))):
        if command not in ("train", "tune"):
            raise RequestError(f"expected train or tune, got {command!r}", field="--command")
        refuse_idle(context, _ABOUT_IMAGES, "with a recipe")
        if dry_run:
            refuse_idle(context, ("follow",), "with --dry-run")
        jobs.submit_recipe(
            Path(what),
            overrides or (),
            on=on or "local",
            command="tune" if command == "tune" else "train",
            team=team,
            code=code,
            dry_run=dry_run,
            follow=follow,
            json=json,
        )
        return
    if source is None or output is None or on is not None or overrides or dry_run:
        raise RequestError(
            "expected a recipe alone, or a model with the URI of its images and one for the answers",
            field="INPUT" if source is None else "OUTPUT" if output is None else "--on",
            hint="cytoray jobs submit recipe.yaml --on PLACE, or cytoray jobs submit MODEL INPUT OUTPUT --url URL",
        )
    refuse_idle(context, ("command", "team", "code"), "with a model")
    selection = chosen(channel, plane, frame, series, input_axes, pixel_size)
    with _client(url) as client:
        job = client.submit_job(
            what,
            _uri(source),
            _uri(output),
            format=form,
            pattern=pattern,
            masks=None if masks is None else _uri(masks),
            boxes=None if boxes is None else _uri(boxes),
            segmentation=segmentation,
            workers=workers,
            **selection.given(),
        )
        if follow:
            print(f"{job.id} is taken", file=sys.stderr, flush=True)
            job = _follow(client, job)
    _print(job, json=json)
    if job.state == "failed":
        raise typer.Exit(1)
    if job.items_failed:
        raise typer.Exit(2)


@app.command("list")
def list_jobs(context: typer.Context, on: OnOption = None, url: UrlOption = LOCAL, json: JsonOption = False) -> None:
    """List all jobs, the newest first."""
    if on is not None:
        refuse_idle(context, ("url",), "with --on")
        jobs.list_jobs(on, json=json)
        return
    with _client(url) as client:
        found = client.jobs()
    if json:
        print_json(found)
        return
    rows = [jobs.Row(one.id, "damaged", "predict", "", "", "", None) for one in found.damaged]
    rows += [
        jobs.Row(job.id, job.state, "predict", _models(job), job.owner, _progress(job), job.created)
        for job in found.jobs
    ]
    jobs.print_rows(rows)
    for one in found.damaged:
        print(f"{one.id} is damaged: {one.error.message}", file=sys.stderr)


@app.command()
def show(
    context: typer.Context,
    job_id: JobArgument,
    on: OnOption = None,
    url: UrlOption = LOCAL,
    follow: FollowOption = False,
    json: JsonOption = False,
) -> None:
    """Show where a job stands."""
    if on is not None:
        refuse_idle(context, ("url",), "with --on")
        jobs.show_job(job_id, on, follow=follow, json=json)
        return
    with _client(url) as client:
        job = client.job(job_id)
        if follow:
            job = _follow(client, job)
    _print(job, json=json)


@app.command()
def logs(
    context: typer.Context,
    job_id: JobArgument,
    on: OnOption = None,
    url: UrlOption = LOCAL,
    follow: FollowOption = False,
    json: JsonOption = False,
) -> None:
    """Print what the processes of a job said."""
    if on is not None:
        refuse_idle(context, ("url",), "with --on")
        jobs.print_log(job_id, on, follow=follow, json=json)
        return
    with _client(url) as client:
        text = client.job_log(job_id)
        if json:
            print_json({"id": job_id, "log": text})
            return
        print(text, end="", flush=True)
        while follow and not client.job(job_id).has_ended:
            time.sleep(_POLL_SECONDS)
            before, text = text, client.job_log(job_id)
            # Of a long log only the end comes: what was printed may begin before it.
            known = text.rfind(before[-200:]) if before else -1
            print(text[known + len(before[-200:]) :] if known >= 0 else text, end="", flush=True)


@app.command()
def stop(
    context: typer.Context,
    job_id: JobArgument,
    on: OnOption = None,
    url: UrlOption = LOCAL,
    json: JsonOption = False,
) -> None:
    """Cancel a job; what is finished stays."""
    if on is not None:
        refuse_idle(context, ("url",), "with --on")
        jobs.stop_job(job_id, on, json=json)
        return
    with _client(url) as client:
        job = client.stop_job(job_id)
    _print(job, json=json)


@app.command()
def serve(
    config: Annotated[Path, typer.Option(help="What the operator has decided, YAML.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 8080,
    insecure_local: Annotated[
        bool, typer.Option("--insecure-local", help="Let everybody on this machine in without a token.")
    ] = False,
) -> None:
    """Take trainings over HTTP from those who have no rights on the cluster."""
    from cytoray_services.jobs.service.running import serve_jobs

    serve_jobs(config, host=host, port=port, insecure_local=insecure_local)


@app.command()
def audit(
    file: Annotated[Path, typer.Argument(help="The audit trail of a jobs service.")], json: JsonOption = False
) -> None:
    """Verify that nobody has changed an audit trail, and print it."""
    jobs.verify_audit(file, json=json)


def _client(url: str) -> Client:
    from cytoray_serving.client import Client

    return Client(url)


def _uri(place: str) -> str:
    """Return a path as a URI; URIs stay as they are."""
    return place if "://" in place else Path(place).absolute().as_uri()


def _follow(client: Client, job: JobStatus) -> JobStatus:
    """Show a bar on standard error until a job has ended."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(job.state, total=None, told="")
        for status in client.follow_job(job.id):
            job = status
            _move(bar, task, job)
    return job


def _move(bar: Progress, task: TaskID, job: JobStatus) -> None:
    ended = job.items_done + job.items_failed
    total = None if job.items_total is None else job.items_total + job.blocks_total
    blocks = f", blocks {job.blocks_done}/{job.blocks_total}" if job.blocks_total else ""
    told = f"{ended}/{'?' if job.items_total is None else job.items_total}{blocks}"
    bar.update(task, description=job.state, completed=ended + job.blocks_done, total=total, told=told)


def _print(job: JobStatus, *, json: bool) -> None:
    if json:
        print_json(job)
        return
    lines = [
        f"{job.id}  {job.state}  predict {_models(job)}",
        f"  {job.request.input} -> {job.request.output}, by {job.owner}",
        f"  {_progress(job)}, {job.objects} objects, {job.megapixels:.1f} megapixels, {job.seconds:.1f} s",
    ]
    if job.blocks_total:
        lines.append(f"  {job.blocks_done} of {job.blocks_total} blocks of large images")
    lines += [f"  {error.item}: {error.error}: {error.message}" for error in job.errors]
    lines += [f"  left out: {one.item} ({one.reason})" for one in job.left_out]
    if job.items_left_out > len(job.left_out):
        lines.append(f"  and {job.items_left_out - len(job.left_out)} more left out")
    lines += [f"  warning: {warning.item}: {warning.sentence} [{warning.code}]" for warning in job.warnings]
    if job.error is not None:
        lines.append(f"  failed: {job.error.message}")
        if job.error.hint:
            lines.append(f"   hint: {job.error.hint}")
    print("\n".join(lines))


def _models(job: JobStatus) -> str:
    return " > ".join(model.name + (f"/{model.version}" if model.version else "") for model in job.models)


def _progress(job: JobStatus) -> str:
    total = "?" if job.items_total is None else job.items_total
    warned = f", {job.items_warned} with warnings" if job.items_warned else ""
    return f"{job.items_done} of {total} images done, {job.items_failed} failed{warned}"

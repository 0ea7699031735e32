"""``cytoray jobs``: work in bulk, done by a service."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from cytoray_analysis.errors import PlatformError
from cytoray_services.commands.output import JsonOption, print_json

if TYPE_CHECKING:
    from cytoray_serving.client import Client
    from cytoray_serving.jobs.request import JobStatus

app = typer.Typer(no_args_is_help=True, help="Work in bulk: slides, volumes, plates, movies, folders of images.")

_POLL_SECONDS = 1.0
UrlOption = Annotated[str, typer.Option(help="Address of the service.", envvar="CYTORAY_URL")]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="As submit and list show it.")]
FollowOption = Annotated[bool, typer.Option("--follow", help="Go on until the job has ended.")]
LOCAL = "http://127.0.0.1:8000"


@app.command()
def submit(
    what: Annotated[str, typer.Argument(metavar="MODEL", help="name, name@alias, name/version or a pipeline.")],
    source: Annotated[str, typer.Argument(metavar="INPUT", help="URI or path of an image, a plate or a folder.")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="URI or path of a folder that holds nothing yet.")],
    url: UrlOption = LOCAL,
    form: Annotated[str | None, typer.Option("--format", help="Form of the answers, as for predict; or zarr.")] = None,
    pattern: Annotated[str, typer.Option(help="Which names of a folder are taken, such as '*.tif'.")] = "*",
    masks: Annotated[str | None, typer.Option(help="URI of a label image of the objects, or a folder of them.")] = None,
    boxes: Annotated[str | None, typer.Option(help="URI of a CSV of the cells.")] = None,
    segmentation: Annotated[str | None, typer.Option(metavar="MODEL", help="Model that finds the objects.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes at most.")] = None,
    follow: FollowOption = False,
    json: JsonOption = False,
) -> None:
    """Have a service answer images from a URI to a URI; paths are those of the service's machine."""
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
        )
        if follow:
            print(f"{job.id} is taken", file=sys.stderr, flush=True)
            job = _follow(client, job)
    _print(job, json=json)
    _exit_as(job)


@app.command("list")
def list_jobs(url: UrlOption = LOCAL, json: JsonOption = False) -> None:
    """List all jobs, the newest first."""
    with _client(url) as client:
        jobs = client.jobs()
    if json:
        print_json({"jobs": jobs})
        return
    table = Table("id", "state", "models", "done", "failed", "of", "created", box=None)
    for job in jobs:
        total = "?" if job.items_total is None else str(job.items_total)
        table.add_row(
            job.id, job.state, _models(job), str(job.items_done), str(job.items_failed), total, f"{job.created:%F %T}"
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command()
def show(job_id: JobArgument, url: UrlOption = LOCAL, follow: FollowOption = False, json: JsonOption = False) -> None:
    """Show where a job stands."""
    with _client(url) as client:
        job = client.job(job_id)
        if follow:
            job = _follow(client, job)
    _print(job, json=json)


@app.command()
def logs(job_id: JobArgument, url: UrlOption = LOCAL, follow: FollowOption = False, json: JsonOption = False) -> None:
    """Print what the processes of a job said."""
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
def stop(job_id: JobArgument, url: UrlOption = LOCAL, json: JsonOption = False) -> None:
    """Cancel a job; what is finished stays."""
    with _client(url) as client:
        job = client.stop_job(job_id)
    _print(job, json=json)


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
    total = "?" if job.items_total is None else job.items_total
    lines = [
        f"{job.id}  {job.state}  {_models(job)}",
        f"  {job.request.input} -> {job.request.output}",
        f"  {job.items_done} of {total} images done, {job.items_failed} failed, {job.objects} objects, "
        f"{job.megapixels:.1f} megapixels, {job.seconds:.1f} s",
    ]
    if job.blocks_total:
        lines.append(f"  {job.blocks_done} of {job.blocks_total} blocks of large images")
    lines += [f"  {error.item}: {error.error}: {error.message}" for error in job.errors]
    if job.error is not None:
        lines.append(f"  failed: {job.error.message}")
    print("\n".join(lines))


def _models(job: JobStatus) -> str:
    return " > ".join(model.name + (f"/{model.version}" if model.version else "") for model in job.models)


def _exit_as(job: JobStatus) -> None:
    """End as the job did: 2 where images failed, and 1 where the job did."""
    if job.state == "failed":
        described = job.error
        raise PlatformError(described.message if described else "the job failed", hint="cytoray jobs logs says more")
    if job.items_failed:
        raise typer.Exit(2)

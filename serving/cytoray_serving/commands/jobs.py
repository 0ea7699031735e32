"""``cytoray jobs``: training runs and bulk predictions on this machine, on a cluster or through a service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cytoray_analysis.errors import RequestError
from cytoray_services.commands import jobs
from cytoray_services.commands.idle import refuse_idle
from cytoray_services.commands.output import JsonOption
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

if TYPE_CHECKING:
    from cytoray_services.jobs.backend import JobBackend
    from cytoray_services.jobs.job import Job

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Training runs on a cluster, and bulk predictions: slides, volumes, plates, movies, folders of images."
    "\n\nExample: cytoray jobs list",
)

LOCAL = "http://127.0.0.1:8000"
UrlOption = Annotated[
    str, typer.Option(help="Address of the service; the same as --on service:URL.", envvar="CYTORAY_URL")
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="BACKEND",
        help="Where jobs run: local, ray://HOST:PORT, http://HOST:8265, kubernetes, kubernetes:CONTEXT/NAMESPACE or "
        "service:URL; several with commas between them. By default CYTORAY_ON, or else this machine and the --url.",
    ),
]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="ID of the job, as shown by train, predict and list.")]
FollowOption = Annotated[bool, typer.Option("--follow", help="Continue until the job has ended.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the recipe; may be repeated."),
]
CommandOption = Annotated[str, typer.Option(metavar="train|tune", help="What to do with the recipe.")]
TeamOption = Annotated[str | None, typer.Option(help="Team of the job, if the token has several.")]
CodeOption = Annotated[bool, typer.Option("--code", help="Send the code that is installed here with the job.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what would be sent, without sending it.")]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format", help="Format of the answers, see cytoray predict --help; by default the first of the task."
    ),
]
PatternOption = Annotated[str, typer.Option(help="Pattern of the file names to use, such as '*.tif'.")]
MasksOption = Annotated[str | None, typer.Option(help="URI of a label image of the objects, or a folder of them.")]
BoxesOption = Annotated[str | None, typer.Option(help="URI of a CSV of the cells.")]
SegmentationOption = Annotated[str | None, typer.Option(metavar="MODEL", help="Model that finds the objects.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Maximum number of worker processes; by default the limit of the service.")
]
_ABOUT_IMAGES = (
    *("form", "pattern", "masks", "boxes", "segmentation", "workers", "url"),
    *("channel", "plane", "frame", "series", "input_axes", "pixel_size", "diameter"),
)


@app.command()
def train(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")],
    on: OnOption = None,
    overrides: SetOption = None,
    command: CommandOption = "train",
    team: TeamOption = None,
    code: CodeOption = False,
    dry_run: DryRunOption = False,
    follow: FollowOption = False,
    json: JsonOption = False,
) -> None:
    """Train with a RECIPE on this machine, on a cluster or through the jobs service; or tune with it.

    Example: cytoray jobs train recipe.yaml --on kubernetes --follow
    """
    if command not in ("train", "tune"):
        raise RequestError(f"expected train or tune, got {command!r}", field="--command")
    if dry_run:
        refuse_idle(context, ("follow",), "with --dry-run")
    jobs.submit_recipe(
        _open(context, on, LOCAL, code=code),
        recipe,
        overrides or (),
        command="tune" if command == "tune" else "train",
        team=team,
        dry_run=dry_run,
        follow=follow,
        json=json,
    )


@app.command()
def predict(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="name, name@alias, name/version, or a pipeline.")],
    source: Annotated[str, typer.Argument(metavar="INPUT", help="URI or path of an image, a plate or a folder.")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="URI or path of an empty or new folder.")],
    on: OnOption = None,
    url: UrlOption = LOCAL,
    form: FormatOption = None,
    pattern: PatternOption = "*",
    masks: MasksOption = None,
    boxes: BoxesOption = None,
    segmentation: SegmentationOption = None,
    channel: ChannelOption = None,
    plane: PlaneOption = None,
    frame: FrameOption = None,
    series: SeriesOption = None,
    input_axes: InputAxesOption = None,
    pixel_size: PixelSizeOption = None,
    diameter: DiameterOption = None,
    workers: WorkersOption = None,
    team: TeamOption = None,
    follow: FollowOption = False,
    json: JsonOption = False,
) -> None:
    """Predict many or large images with a MODEL of a service, from a URI to a URI.

    Paths are paths on the machine of the service.

    Example: cytoray jobs predict nuclei s3://plates/03/ s3://results/03/ --format csv --follow
    """
    selection = chosen(channel, plane, frame, series, input_axes, pixel_size, diameter)
    given = {"format": form, "masks": _uri(masks), "boxes": _uri(boxes), "segmentation": segmentation}
    request = {"input": _uri(source), "output": _uri(output), "pattern": pattern, "workers": workers, **given}
    backend = _open(context, on, url)
    _predict(backend, model, request | selection.given(), team=team, follow=follow, json=json)


@app.command()
def submit(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|MODEL", help="A recipe in YAML; or name, name@alias, name/version, or a pipeline."
        ),
    ],
    source: Annotated[
        str | None, typer.Argument(metavar="INPUT", help="URI or path of an image, a plate or a folder.")
    ] = None,
    output: Annotated[
        str | None, typer.Argument(metavar="OUTPUT", help="URI or path of an empty or new folder.")
    ] = None,
    on: OnOption = None,
    overrides: SetOption = None,
    command: CommandOption = "train",
    team: TeamOption = None,
    code: CodeOption = False,
    dry_run: DryRunOption = False,
    url: UrlOption = LOCAL,
    form: FormatOption = None,
    pattern: PatternOption = "*",
    masks: MasksOption = None,
    boxes: BoxesOption = None,
    segmentation: SegmentationOption = None,
    channel: ChannelOption = None,
    plane: PlaneOption = None,
    frame: FrameOption = None,
    series: SeriesOption = None,
    input_axes: InputAxesOption = None,
    pixel_size: PixelSizeOption = None,
    diameter: DiameterOption = None,
    workers: WorkersOption = None,
    follow: FollowOption = False,
    json: JsonOption = False,
) -> None:
    """Earlier name of jobs train (with a RECIPE) and jobs predict (with a MODEL).

    Example: cytoray jobs submit recipe.yaml --on kubernetes
    """
    if source is None and (on is not None or what.endswith((".yaml", ".yml"))):
        refuse_idle(context, _ABOUT_IMAGES, "with a recipe")
        print("warning: jobs submit RECIPE is now jobs train RECIPE", file=sys.stderr)
        train(context, Path(what), on, overrides, command, team, code, dry_run, follow, json)
        return
    if source is None or output is None or overrides or dry_run:
        raise RequestError(
            "expected only a recipe, or a model with the URI of the images and the URI for the answers",
            field="INPUT" if source is None else "OUTPUT" if output is None else "--on",
            hint="cytoray jobs train recipe.yaml --on BACKEND, or cytoray jobs predict MODEL INPUT OUTPUT --url URL",
        )
    refuse_idle(context, ("command", "code"), "with a model")
    print("warning: jobs submit MODEL is now jobs predict MODEL", file=sys.stderr)
    given = (form, pattern, masks, boxes, segmentation)
    about = (*given, channel, plane, frame, series, input_axes, pixel_size, diameter)
    predict(context, what, source, output, on, url, *about, workers, team, follow, json)


@app.command("list")
def list_jobs(context: typer.Context, on: OnOption = None, url: UrlOption = LOCAL, json: JsonOption = False) -> None:
    """List training runs and bulk predictions with their progress, newest first.

    Example: cytoray jobs list --on kubernetes:/lab,service:https://models.example.org
    """
    jobs.list_jobs(_open(context, on, url), json=json)


@app.command()
def show(
    context: typer.Context,
    job_id: JobArgument,
    on: OnOption = None,
    url: UrlOption = LOCAL,
    follow: FollowOption = False,
    json: JsonOption = False,
) -> None:
    """Show the state and progress of a job. Also available as jobs status.

    Example: cytoray jobs show nuclei-x7k2q --follow
    """
    from cytoray_services.jobs.progress import with_progress

    backend = _open(context, on, url)
    job = with_progress(backend, backend.show(job_id))
    jobs.print_job(_followed(backend, job) if follow else job, json=json)


app.command("status", hidden=True)(show)


@app.command()
def logs(
    context: typer.Context,
    job_id: JobArgument,
    on: OnOption = None,
    url: UrlOption = LOCAL,
    follow: FollowOption = False,
    json: JsonOption = False,
) -> None:
    """Print the log of a job.

    Example: cytoray jobs logs nuclei-x7k2q --follow
    """
    jobs.print_log(_open(context, on, url), job_id, follow=follow, json=json)


@app.command()
def stop(
    context: typer.Context,
    job_id: JobArgument,
    on: OnOption = None,
    url: UrlOption = LOCAL,
    json: JsonOption = False,
) -> None:
    """Cancel a job; finished results are kept.

    Example: cytoray jobs stop nuclei-x7k2q
    """
    jobs.print_job(_open(context, on, url).stop(job_id), json=json)


@app.command()
def serve(
    config: Annotated[Path, typer.Option(help="Configuration of the jobs service, a YAML file.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all addresses.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8080,
    insecure_local: Annotated[
        bool, typer.Option("--insecure-local", help="Require no token; listen on the loopback address only.")
    ] = False,
) -> None:
    """Run the jobs service, which accepts recipes over HTTP from users without rights on the cluster.

    Example: cytoray jobs serve --config jobs.yaml
    """
    from cytoray_services.jobs.service.running import serve_jobs

    serve_jobs(config, host=host, port=port, insecure_local=insecure_local)


@app.command()
def audit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The audit trail of a jobs service.")],
    json: JsonOption = False,
) -> None:
    """Verify that an audit trail is unchanged, and print it.

    Example: cytoray jobs audit audit.jsonl
    """
    jobs.verify_audit(file, json=json)


def _open(context: typer.Context, on: str | None, url: str, *, code: bool = False) -> JobBackend:
    """Open the backend of --on or --url, or of CYTORAY_ON, or this machine."""
    from cytoray_services.settings import load_settings
    from cytoray_serving.jobs.backends import open_jobs

    source = context.get_parameter_source("url")
    by = "" if source is None else source.name
    if on is not None:
        refuse_idle(context, ("url",), "with --on")
    elif by == "COMMANDLINE":
        on = f"service:{url}"
    settings = load_settings()
    return open_jobs(on or settings.jobs_on, url, settings, named=by == "ENVIRONMENT", code=code)


def _predict(
    backend: JobBackend, model: str, request: dict[str, Any], *, team: str | None, follow: bool, json: bool
) -> None:
    from cytoray_services.jobs.submission import BulkSubmission

    known = {name: value for name, value in request.items() if value is not None}
    job = backend.submit(BulkSubmission(model=model, request=known), owner=jobs.user(), team=team)
    if follow:
        print(f"submitted {job.id}", file=sys.stderr, flush=True)
        job = _followed(backend, job)
    jobs.print_job(job, json=json)
    if job.state == "failed":
        raise typer.Exit(1)
    if job.progress is not None and job.progress.failed:
        raise typer.Exit(2)


def _uri(place: str | None) -> str | None:
    """Return a path as a URI; leave URIs unchanged."""
    return place if place is None or "://" in place else Path(place).absolute().as_uri()


def _followed(backend: JobBackend, job: Job) -> Job:
    """Wait until a job has ended; show a progress bar of its images on standard error."""
    from cytoray_serving.jobs.bulk import BulkJob

    if not isinstance(job, BulkJob):
        return jobs.until_ended(backend, job)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(job.state, total=None, done="")
        for one in backend.follow(job.id):
            job = one
            if isinstance(job, BulkJob):
                bar.update(task, **job.bar())
    return job

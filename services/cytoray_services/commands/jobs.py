"""What ``cytoray jobs`` does with jobs of a cluster, and how jobs of all kinds are printed."""

from __future__ import annotations

import getpass
import os
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from cytoray_analysis.errors import MissingFileError, RecipeError
from cytoray_services.commands.output import print_json
from cytoray_services.settings import load_settings

if TYPE_CHECKING:
    from cytoray_services.jobs.job import Command, Job
    from cytoray_services.jobs.place import Place

_POLL_SECONDS = 1.0


class Row(NamedTuple):
    """A job in a list, of whatever kind: ``train``, ``tune`` or ``predict``."""

    id: str
    state: str
    command: str
    model: str
    owner: str
    progress: str
    created: datetime | None


def print_rows(rows: Iterable[Row]) -> None:
    """Print jobs as a table."""
    table = Table("id", "state", "command", "model", "owner", "progress", "created", box=None)
    for row in rows:
        table.add_row(*row[:-1], "" if row.created is None else f"{row.created:%F %T}")
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def submit_recipe(
    recipe: Path,
    overrides: Sequence[str],
    *,
    on: str,
    command: Command,
    team: str | None,
    code: bool,
    dry_run: bool,
    follow: bool,
    json: bool,
) -> None:
    """Check a recipe whole and have it trained or tuned somewhere; see ``cytoray jobs submit``."""
    from cytoray_services.jobs.place import open_place
    from cytoray_services.jobs.submission import read_submission

    submission = read_submission(_text(recipe), overrides, command=command)
    place = open_place(on, load_settings(), code=code)
    if dry_run:
        _print_manifest(place.manifest(submission, owner=_user(), team=team), json=json)
        return
    job = place.submit(submission, owner=_user(), team=team)
    if follow:
        print(f"{job.id} is taken", file=sys.stderr, flush=True)
        for piece in place.logs(job.id, follow=True):
            print(piece, end="", file=sys.stderr, flush=True)
        job = _ended(place, job)
    _print(job, json=json)
    if follow and job.state != "done":
        raise typer.Exit(1)


def list_jobs(on: str, *, json: bool) -> None:
    """List the jobs of a place, the newest first."""
    jobs = _open(on).list()
    if json:
        print_json({"jobs": jobs})
        return
    print_rows(
        Row(
            job.id,
            job.state,
            job.command,
            job.name,
            job.owner,
            _progress(job),
            job.created,
        )
        for job in jobs
    )


def show_job(job_id: str, on: str, *, follow: bool, json: bool) -> None:
    """Show where a job stands; with `follow` when it has ended."""
    place = _open(on)
    job = place.show(job_id)
    _print(_ended(place, job, say=True) if follow else job, json=json)


def print_log(job_id: str, on: str, *, follow: bool, json: bool) -> None:
    """Print what a job has said."""
    pieces = _open(on).logs(job_id, follow=follow)
    if json:
        print_json({"id": job_id, "log": "".join(pieces)})
        return
    for piece in pieces:
        print(piece, end="", flush=True)


def stop_job(job_id: str, on: str, *, json: bool) -> None:
    """Cancel a job."""
    _print(_open(on).stop(job_id), json=json)


def verify_audit(path: Path, *, json: bool) -> None:
    """Verify an audit trail and print its lines."""
    from cytoray_services.jobs.service.audit import read_audit

    acts = read_audit(path)
    if json:
        print_json({"file": path, "whole": True, "last": acts[-1].digest if acts else None, "acts": acts})
        return
    for act in acts:
        asked = f"{act.who} ({act.team})" if act.team else act.who or "somebody"
        told = "" if act.reason is None else f": {act.reason}"
        print(f"{act.when:%F %T}  {asked}  {act.what}  {act.job or '-'}  {act.outcome}{told}")
    print(f"whole: {len(acts)} lines, the last is {acts[-1].digest if acts else 'none'}", file=sys.stderr)


def _open(on: str) -> Place:
    from cytoray_services.jobs.place import open_place

    return open_place(on, load_settings())


def _text(recipe: Path) -> str:
    if not recipe.is_file():
        raise MissingFileError(f"there is no recipe at {recipe}", field="recipe", hint="check the path")
    try:
        return recipe.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"expected a YAML file, got {recipe}, which is no text", field="recipe") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return str(os.getuid())


def _ended(place: Place, job: Job, *, say: bool = False) -> Job:
    told = None
    while not job.has_ended:
        if say and job.state != told:
            told = job.state
            print(f"{job.id} is {told}", file=sys.stderr, flush=True)
        time.sleep(_POLL_SECONDS)
        job = place.show(job.id)
    return job


def _print_manifest(manifest: str, *, json: bool) -> None:
    import yaml

    if json:
        documents = [one for one in yaml.safe_load_all(manifest) if one is not None]
        print_json(documents[0] if len(documents) == 1 else {"items": documents})
    else:
        print(manifest, end="" if manifest.endswith("\n") else "\n")


def _print(job: Job, *, json: bool) -> None:
    if json:
        print_json(job)
        return
    team = f", team {job.team}" if job.team else ""
    lines = [f"{job.id}  {job.state}  {job.command} {job.name}", f"  on {job.place}, by {job.owner}{team}"]
    if progress := _progress(job):
        lines.append(f"  {progress}")
    if job.reason:
        lines.append(f"  {job.state}: {job.reason}")
    if job.hint:
        lines.append(f"   hint: {job.hint}")
    if job.dashboard and not job.has_ended:
        lines.append(f"  {job.dashboard}")
    print("\n".join(lines))


def _progress(job: Job) -> str:
    workers = [] if job.workers is None else [f"{job.workers} workers"]
    return ", ".join(workers + ([f"{job.seconds:.1f} s"] if job.seconds else []))

"""What ``cytoray jobs`` does with jobs of every kind on every backend, and how it prints them."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from cytoray_analysis.errors import MissingFileError, RecipeError
from cytoray_services.commands.output import print_json

if TYPE_CHECKING:
    from cytoray_services.jobs.backend import JobBackend
    from cytoray_services.jobs.job import Command, Job


def submit_recipe(
    backend: JobBackend,
    recipe: Path,
    overrides: Sequence[str],
    *,
    command: Command,
    team: str | None,
    dry_run: bool,
    follow: bool,
    json: bool,
) -> None:
    """Check a recipe and submit it; see ``cytoray jobs train``."""
    from cytoray_services.jobs.submission import read_submission

    submission = read_submission(_text(recipe), overrides, command=command)
    if dry_run:
        _print_manifest(backend.manifest(submission, owner=user(), team=team), json=json)
        return
    job = backend.submit(submission, owner=user(), team=team)
    if follow:
        print(f"{job.id} is submitted", file=sys.stderr, flush=True)
        for piece in backend.logs(job.id, follow=True):
            print(piece, end="", file=sys.stderr, flush=True)
        job = until_ended(backend, job, say=False)
    print_job(job, json=json)
    if follow and job.state != "done":
        raise typer.Exit(1)


def list_jobs(backend: JobBackend, *, json: bool) -> None:
    """Print all jobs, newest first."""
    from cytoray_services.jobs.progress import with_progress

    found = [with_progress(backend, job) for job in backend.list()]
    damaged = [job for job in found if job.state == "damaged"]
    if json:
        errors = [{"error": "PlatformError", "message": job.reason, "hint": job.hint} for job in damaged]
        shown = [{"id": job.id, "error": error} for job, error in zip(damaged, errors, strict=True)]
        print_json({"jobs": [job for job in found if job.state != "damaged"], "damaged": shown})
        return
    table = Table("id", "state", "command", "model", "owner", "progress", "created", box=None)
    for job in found:
        created = "" if job.created is None else f"{job.created:%F %T}"
        table.add_row(job.id, job.state, job.command, job.name, job.owner, job.known_progress, created)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for job in damaged:
        print(f"{job.id} is damaged: {job.reason}", file=sys.stderr)


def print_job(job: Job, *, json: bool) -> None:
    """Print the state of a job."""
    if json:
        print_json(job)
    else:
        print("\n".join(job.lines()))


def print_log(backend: JobBackend, job_id: str, *, follow: bool, json: bool) -> None:
    """Print the log of a job."""
    pieces = backend.logs(job_id, follow=follow)
    if json:
        print_json({"id": job_id, "log": "".join(pieces)})
        return
    for piece in pieces:
        print(piece, end="", flush=True)


def until_ended(backend: JobBackend, job: Job, *, say: bool = True) -> Job:
    """Wait until a job has ended; print each change of its state on standard error."""
    last, known = job, ""
    for last in backend.follow(job.id):
        if say and last.state != known and not last.has_ended:
            known = last.state
            print(f"{job.id} is {known}", file=sys.stderr, flush=True)
    return last


def verify_audit(path: Path, *, json: bool) -> None:
    """Verify an audit trail and print its lines."""
    from cytoray_services.jobs.service.audit import read_audit

    acts = read_audit(path)
    if json:
        print_json({"file": path, "whole": True, "last": acts[-1].digest if acts else None, "acts": acts})
        return
    for act in acts:
        asked = f"{act.who} ({act.team})" if act.team else act.who or "unknown user"
        why = "" if act.reason is None else f": {act.reason}"
        print(f"{act.when:%F %T}  {asked}  {act.what}  {act.job or '-'}  {act.outcome}{why}")
    lines = "1 line" if len(acts) == 1 else f"{len(acts)} lines"
    print(f"intact: {lines}, the last is {acts[-1].digest if acts else 'none'}", file=sys.stderr)


def user() -> str:
    """Return the name of the user of this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, the user ID may have no name
        return str(os.getuid())


def _text(recipe: Path) -> str:
    if not recipe.is_file():
        raise MissingFileError(f"expected a recipe, there is no file {recipe}", field="recipe", hint="check the path")
    try:
        return recipe.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"expected a YAML file, got {recipe}, which is not text", field="recipe") from error


def _print_manifest(manifest: str, *, json: bool) -> None:
    import yaml

    if json:
        documents = [one for one in yaml.safe_load_all(manifest) if one is not None]
        print_json(documents[0] if len(documents) == 1 else {"items": documents})
    else:
        print(manifest, end="" if manifest.endswith("\n") else "\n")

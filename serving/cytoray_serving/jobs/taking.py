"""Checks a job before it is saved: its locations, its models, and the limits of its owner."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cytoray_analysis.each import require_each
from cytoray_analysis.errors import OverloadedError, RequestError
from cytoray_analysis.kinds import task_kind
from cytoray_services.registry import load_bundle
from cytoray_services.settings import Settings
from cytoray_services.tokens.access import Caller
from cytoray_serving.answers import ZARR, form_named, require_zarr
from cytoray_serving.gateway.teams import allowed_for
from cytoray_serving.jobs.request import JobRequest, JobStatus
from cytoray_serving.jobs.request_locations import check_locations
from cytoray_serving.jobs.store import Job, JobStore, new_id, now
from cytoray_serving.replica.step_checks import Step, check_steps
from cytoray_serving.schema import ModelAnswered
from cytoray_serving.service.config import ServiceConfig

_RETRY_SECONDS = 60


@dataclass(frozen=True)
class JobTaker:
    """Checks jobs and saves them as folders for the drivers.

    Attributes
    ----------
    store
        Store of the jobs.
    settings
        Location of the registry.
    config
        Allowed locations, options of jobs, and limits of callers and teams.
    """

    store: JobStore
    settings: Settings
    config: ServiceConfig

    def take(self, steps: tuple[str, ...], request: JobRequest, caller: Caller) -> JobStatus:
        """Check and save a job.

        Parameters
        ----------
        steps
            Exact references of the models in order; a segmentation model comes first.
        caller
            The owner of the job.

        Raises
        ------
        InputError
            There is no image, a location is not allowed, the output is not empty, the models do not match each other or
            the given objects, or the format does not exist.
        OverloadedError
            The caller or the team has reached its limit of unfinished jobs.
        PlatformError
            A model cannot be fetched, or a store does not answer.
        """
        if not steps:
            raise RequestError("expected at least one model, got none", field="model")
        team = caller.team_for(request.team)
        allowed = allowed_for(caller, self.config.allowed, self.config.teams)
        check_locations(request, allowed)
        loaded = [load_bundle(reference, self.settings) for reference in steps]
        kinds = [task_kind(bundle.spec.task.name) for bundle, _ in loaded]
        models = [
            ModelAnswered(
                name=bundle.spec.name if version is None else version.name,
                version=None if version is None else version.version,
                digest=bundle.digest,
            )
            for bundle, version in loaded
        ]
        if request.masks is not None and request.boxes is not None:
            raise RequestError("expected masks or boxes, got both", field="boxes", hint="keep one of them")
        objects = next((name for name in ("masks", "boxes") if getattr(request, name) is not None), None)
        steps_of = [Step(model.name, kind.truth, kind.per) for model, kind in zip(models, kinds, strict=True)]
        check_steps(steps_of, objects=objects)
        for (bundle, _), one in zip(loaded, kinds, strict=True):
            require_each(bundle.spec, one.per, request.each)
        kind = kinds[-1].truth
        if request.format == ZARR:
            require_zarr(kind)
        else:
            form_named(request.format, kind)
        jobs, last = self.config.jobs, loaded[-1][0].spec.input
        job = Job(
            id=new_id(),
            steps=tuple(_lasting(reference) for reference in steps),
            models=tuple(models),
            request=request,
            owner=caller.name,
            team=team,
            created=now(),
            allowed=allowed,
            options=jobs.run,
            movies=last.movies,
            spatial_axes=last.spatial_axes,
            workers=min(request.workers or jobs.workers, jobs.workers),
            cpus_per_worker=jobs.resources.cpus,
            gpus_per_worker=jobs.resources.gpus or 0.0,
        )
        return self.store.create(job, admit=lambda: self._require_room(caller, team))

    def _require_room(self, caller: Caller, team: str | None) -> None:
        """Refuse a job above the limit of a caller or team; the scope administer has no limit."""
        own = None if caller.administers else self.config.jobs.per_caller
        limited = None if caller.administers or team is None else self.config.teams.get(team)
        of_team = None if limited is None else limited.jobs
        if own is None and of_team is None:
            return
        going_on = [job for job in self.store.states().jobs if not job.has_ended]
        for who, most, jobs in (
            (f"caller {caller.name}", own, sum(job.owner == caller.name for job in going_on)),
            (f"team {team}", of_team, sum(job.team == team for job in going_on)),
        ):
            if most is not None and jobs >= most:
                error = OverloadedError(
                    f"expected at most {most} unfinished jobs of the {who}, got one more",
                    field="jobs",
                    hint="wait until a job has ended, or stop one: DELETE /jobs/{job_id}",
                )
                error.retry_after = _RETRY_SECONDS
                raise error


def _lasting(reference: str) -> str:
    """Return a reference that is valid in other processes: for a folder its absolute path."""
    return str(Path(reference).absolute()) if Path(reference).is_dir() else reference

"""The answers of a job are on the disk before its journal names them: a loss of power costs work and no answer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.bundle import Bundle, write_bundle
from cytoray_analysis.errors import BundleError
from cytoray_services.settings import load_settings
from cytoray_services.storage.allowed import Allowed
from cytoray_serving.jobs.request import JobRequest
from cytoray_serving.jobs.store import Job, JobStore
from cytoray_serving.jobs.work import load_step
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.schema import ModelAnswered
from job_samples import new_job, write_images

# What a worker and then the driver do, in one process that strace watches.
_WORKING = """
import sys
from pathlib import Path
from cytoray_services.settings import load_settings
from cytoray_serving.jobs.driver import RayWorker
from cytoray_serving.jobs.plan import plan
from cytoray_serving.jobs.journal import Journal
from cytoray_serving.jobs.store import JobFolder, Record
from cytoray_serving.jobs.work import Task

folder = JobFolder(Path(sys.argv[1]))
job = folder.job()
worker = RayWorker(job, load_settings(), True)
with Journal(folder) as journal:
    for item in plan(job.request, job.allowed, movies=False, spatial_axes="YX").items:
        found = worker({"task": [Task(kind="item", item=item).model_dump_json()]})["record"]
        journal.append(Record.model_validate_json(text) for text in found)
"""


def a_job(bundle: Bundle, source: Path, output: Path, *, form: str | None = None) -> Job:
    return new_job(
        steps=(str(bundle.folder),),
        models=(ModelAnswered(name="nuclei", version=None, digest=bundle.digest),),
        request=JobRequest(input=source.as_uri(), output=output.as_uri(), format=form),
        allowed=Allowed(roots=(source.parent,)),
        options=ReplicaOptions(threads=1),
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("form", [None, pytest.param("zarr", marks=pytest.mark.long)])
def test_answers_are_on_disk_once_per_batch_before_the_journal_names_them(
    bundle_folder: Path, tmp_path: Path, form: str | None
) -> None:
    source, output = write_images(tmp_path / "in", 3), tmp_path / "out"
    job = a_job(Bundle.load(bundle_folder), source, output, form=form)
    store = JobStore(tmp_path / "jobs")
    store.create(job)
    log = tmp_path / "strace"
    watched = "trace=fsync,fdatasync,syncfs,rename,renameat,renameat2,write"
    command = ["strace", "-f", "-y", "-s", "64", "-o", str(log), "-e", watched, sys.executable, "-c", _WORKING]
    subprocess.run([*command, str(store.find(job.id).path)], check=True, timeout=240)

    steps = "".join(step for line in log.read_text().splitlines() if (step := step_of(line, output)))
    # a: part of an answer has its name; s: the disk has all; j: the journal names it; d: and so has the disk.
    assert re.fullmatch(r"(a+sjd){3}", steps), steps
    assert len(store.find(job.id).records()) == 3


def step_of(line: str, output: Path) -> str:
    call = line.partition(" ")[2].strip()
    if call.startswith("rename") and str(output) in call:
        return "a"
    if call.startswith("syncfs") and str(output) in call:
        return "s"
    if "records.jsonl" in call:
        return "j" if call.startswith("write") else "d"
    return "f" if "sync" in call and str(output) in call else ""


def test_a_job_does_not_go_on_with_another_model_than_it_began_with(bundle_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "nuclei"))
    first = Bundle.load(folder)
    job = a_job(first, tmp_path / "in", tmp_path / "out")
    settings = load_settings({"CYTORAY_HOME": str(tmp_path / "home")})
    assert load_step(job, 0, settings)[0].digest == first.digest
    weights = {name: 2 * value for name, value in first.network().state_dict().items()}
    spec = first.spec.model_copy(update={"provenance": {"trained": "again"}})
    write_bundle(folder, spec, weights, test_input=np.load(folder / "test_input.npy"), card="# again\n")
    with pytest.raises(BundleError, match="as at the submission of the job"):
        load_step(job, 0, settings)

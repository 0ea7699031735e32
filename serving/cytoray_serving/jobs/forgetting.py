"""Removes the records of jobs that ended long ago; their outputs stay."""

from __future__ import annotations

import contextlib
import shutil
from datetime import datetime

from cytoray_analysis.errors import PlatformError
from cytoray_serving.jobs.store import JobFolder, JobStore

_GONE = ".removed-"


def remove_ended(store: JobStore, before: datetime) -> list[str]:
    """Remove the records of jobs that ended before a time, and return their names.

    A job with a running driver or a damaged record stays.
    """
    for left in store.folder.glob(f"{_GONE}*"):  # left by a killed process
        shutil.rmtree(left)
    removed = []
    for folder in store.folders():
        state = store.readable_state(folder)
        if isinstance(state, PlatformError) or not state.has_ended or (state.ended or state.updated) >= before:
            continue
        with folder.lock() as free:
            if free:
                _remove(store, folder)
                removed.append(folder.path.name)
    return removed


def _remove(store: JobStore, folder: JobFolder) -> None:
    gone = store.folder / f"{_GONE}{folder.path.name}"
    with contextlib.suppress(PlatformError), store.output_holder(folder.job().request.output) as holder:
        if holder.exists() and holder.read_text(encoding="ascii") == folder.path.name:
            holder.unlink()
    folder.path.rename(gone)  # from now on the job does not exist, even if the rest is interrupted
    shutil.rmtree(gone)

"""A training that is asked to end saves where it is first: the command that runs it tells its workers by a file.

The signal comes to the command; workers may be on other machines, so that what they look at lies in the run's folder,
which they share. All workers agree on the step after which they stop (:mod:`cytoray_training.loop`), save a checkpoint,
and end as at the end of a training. What does not come to that in time is ended as it is, and goes on from the
checkpoint before.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from cytoray_services.stopping import StoppedError, stopped_by_signals

STOP = "stop"
SECONDS_TO_SAVE = 20.0  # SLURM and Kubernetes kill after 30
AGAIN = "run the same command again to resume"
_SECONDS_BETWEEN_LOOKS = 0.5


class StopFile:
    """Whether the training in a folder, or the study in the folder above it, is asked to end.

    Parameters
    ----------
    folder
        Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = (folder / STOP, folder.parent / STOP)
        self._next = 0.0
        self._found = False

    def __call__(self) -> bool:
        """Look, at most twice a second, since the folder may lie across a network."""
        now = time.monotonic()
        if not self._found and now >= self._next:
            self._next = now + _SECONDS_BETWEEN_LOOKS
            self._found = any(path.exists() for path in self._paths)
        return self._found


@contextlib.contextmanager
def saved_when_stopped(
    folder: Path, *, may_save: Callable[[], bool], saved: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Turn a signal that asks this process to end into a stop file, and raise when what it asks for is done.

    Parameters
    ----------
    folder
        Of the run or the study.
    may_save
        Whether there is anything to save yet; if not, the end comes at once.
    saved
        Whether all is saved, where the block does not end by itself then.

    Raises
    ------
    StoppedError
        A signal came: at the end of the block, when all is saved, or after :data:`SECONDS_TO_SAVE`.
    """
    path = folder / STOP
    path.unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    end = 0.0

    def react(number: int) -> None:
        nonlocal end
        if not may_save():
            raise StoppedError(number, hint=AGAIN)
        asked.append(number)
        end = time.monotonic() + SECONDS_TO_SAVE
        path.touch()
        # Not print: this runs in between other writes to the same stream.
        os.write(2, f"{signal.Signals(number).name}: saving a checkpoint\n".encode())
        signal.setitimer(signal.ITIMER_REAL, _SECONDS_BETWEEN_LOOKS, _SECONDS_BETWEEN_LOOKS)

    def look(number: int, frame: FrameType | None) -> None:
        if saved() or time.monotonic() > end:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise StoppedError(asked[0], hint=AGAIN)

    before = signal.signal(signal.SIGALRM, look)
    try:
        with stopped_by_signals(react):
            try:
                yield
            except Exception as error:
                if asked:  # the end of the workers is what was asked for
                    raise StoppedError(asked[0], hint=AGAIN) from error
                raise
            if asked:
                raise StoppedError(asked[0], hint=AGAIN)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
        path.unlink(missing_ok=True)

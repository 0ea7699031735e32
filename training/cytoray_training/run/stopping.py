"""A training run saves a checkpoint before it stops: its command notifies the workers by a file.

The command receives the signal; workers may be on other machines, so the stop file is in the run's shared folder. All
workers agree on the step after which they stop (:mod:`cytoray_training.run.loop`), save a checkpoint, and end as at the
end of a training run. Workers that do not finish in time are ended, and continue from the previous checkpoint.
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
    """Whether the training run in a folder, or the study in its parent folder, must stop.

    Parameters
    ----------
    folder
        Folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = (folder / STOP, folder.parent / STOP)
        self._next = 0.0
        self._found = False

    def __call__(self) -> bool:
        """Check at most twice a second, because the folder may be on a network."""
        now = time.monotonic()
        if not self._found and now >= self._next:
            self._next = now + _SECONDS_BETWEEN_LOOKS
            self._found = any(path.exists() for path in self._paths)
        return self._found


@contextlib.contextmanager
def saved_when_stopped(
    folder: Path, *, may_save: Callable[[], bool], saved: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Turn a termination signal into a stop file, and raise when the state is saved.

    Parameters
    ----------
    folder
        Folder of the run or the study.
    may_save
        Whether there is anything to save; if not, stop immediately.
    saved
        Whether everything is saved, if the block does not then end by itself.

    Raises
    ------
    StoppedError
        A signal was received: raised at the end of the block, when all is saved, or after :data:`SECONDS_TO_SAVE`.
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
        # Not print: this interrupts other writes to the same stream.
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
                if asked:  # ending the workers is the requested result
                    raise StoppedError(asked[0], hint=AGAIN) from error
                raise
            if asked:
                raise StoppedError(asked[0], hint=AGAIN)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
        path.unlink(missing_ok=True)

"""Termination signals raise an exception in the main thread, so that open resources are closed.

SLURM and Kubernetes send SIGTERM and kill half a minute later; Ctrl-C sends SIGINT. Python raises an exception for
SIGINT only; SIGTERM ends it at once and leaves half-written files and child processes behind.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(BaseException):
    """A termination signal arrived. Not an ``Exception``, so that handlers of errors do not catch it.

    Parameters
    ----------
    number
        The signal.
    hint
        How to continue.
    """

    def __init__(self, number: int, *, hint: str | None = None) -> None:
        self.number = signal.Signals(number)
        by = "by the user" if self.number == signal.SIGINT else f"by {self.number.name}"
        self.message = f"stopped {by}"
        self.hint = hint
        super().__init__(self.message)

    @property
    def exit_status(self) -> int:
        """The exit status of shells: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


@contextlib.contextmanager
def stopped_by_signals(react: Callable[[int], None] | None = None) -> Iterator[None]:
    """Raise :class:`StoppedError` in this thread at a termination signal inside this context.

    A repeated SIGTERM is ignored, because supervisors repeat it while files are being closed. Outside the main thread,
    where Python handles no signals, this does nothing.

    Parameters
    ----------
    react
        Called with the signal instead of raising.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        again = bool(seen)
        seen.append(number)
        if again and number == signal.SIGTERM:
            return
        if react is None or again:
            raise StoppedError(number)
        react(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:  # as under nohup, or in the background of a shell
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

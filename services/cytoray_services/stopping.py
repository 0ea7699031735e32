"""A signal that asks this process to end becomes an exception in the main thread, so that what is open is closed.

SLURM and Kubernetes send SIGTERM and kill half a minute later; Ctrl-C sends SIGINT. Python itself knows an exception
for the second only, and ends at once at the first, with half-written files and processes left behind.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(BaseException):
    """A signal asked this process to end. No ``Exception``: what runs in between must not take it for a fault.

    Parameters
    ----------
    number
        The signal.
    message
        What became of the work; by default who stopped it.
    hint
        What to do to go on.
    """

    def __init__(self, number: int, message: str | None = None, *, hint: str | None = None) -> None:
        self.number = signal.Signals(number)
        by = "by the user" if self.number == signal.SIGINT else f"by {self.number.name}"
        self.message = f"stopped {by}" + (f"; {message}" if message else "")
        self.hint = hint
        super().__init__(self.message)

    @property
    def exit_status(self) -> int:
        """As a shell has it: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


@contextlib.contextmanager
def stopped_by_signals(react: Callable[[int], None] | None = None) -> Iterator[None]:
    """Raise :class:`StoppedError` in this thread when a signal asks the process to end inside this context.

    A SIGTERM that comes again changes nothing, since supervisors repeat it and files may be half closed by then.
    Outside the main thread, where Python takes no signals, nothing is changed.

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
